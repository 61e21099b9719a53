"""A step's layers as graphs: recorded and replayed on a CPU, beside the same step launched."""

import dataclasses

import pytest
import torch

from tests.support import toy_whisper
from tests.support.captured_steps import BATCHES, CPU, micro_batch, pretend, stepper
from tests.support.recorder import CpuRecorder
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.kernels import bundles
from tmsearch.model.kernels import recorder as recorder_module
from tmsearch.model.kernels.trained_layers import KeptLayers
from tmsearch.training.step import Stepper


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    pretend(monkeypatch)


def gradients(made):
    """By name; those that the kernels keep among them."""
    names = {id(weight): name for name, weight in made.weights.items()}
    by_name = {name: weight.grad.clone() for name, weight in made.weights.items() if weight.grad is not None}
    parts = [part for cast in made._kernels.weights.values() for part in cast.trained_parts()]
    by_name.update({names[id(part.weight)]: part.gradient.clone() for part in parts})
    return by_name


def dropped(made):
    made.model.zero_grad(set_to_none=True)
    made._kernels.drop_gradients()


@pytest.mark.parametrize(
    "knobs",
    [{}, {"context_silence": True}, {"gradient_checkpointing": True}, {"freeze_encoder": True}, {"lora_r": 4}],
    ids=lambda knobs: next(iter(knobs), "all weights"),
)
@pytest.mark.parametrize("is_cast", [False, True], ids=["own weights", "casts"])
def test_in_float64_replayed_gradients_are_those_of_launches(toy, monkeypatch, knobs, is_cast):
    """Own weights are those of `low_memory`, which have the products' format."""
    if is_cast:
        monkeypatch.setattr(bundles, "needs_cast", lambda weight, dtype: True)
    knobs = {"lora_dropout": 0.0, **knobs}
    recorder = CpuRecorder()
    replayed = stepper(toy, recorder, exact=True, **knobs)
    launched = stepper(toy, None, exact=True, **knobs)
    for batch in BATCHES:
        results = []
        exact = dataclasses.replace(batch, mels=tuple(mels.double() for mels in batch.mels))
        for made in (replayed, launched):
            dropped(made)
            results.append((made.backward(exact), gradients(made)))
        (loss, given), (expected_loss, expected) = results
        torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-12)
        assert given.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(given[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert len(recorder.recordings) == 2  # both passes of one shape


def test_training_by_graphs_is_training(toy):
    """Whole steps: the optimizer reads what the graphs wrote, and they read what it changed."""
    recorder = CpuRecorder()
    replayed, launched = (stepper(toy, made, max_grad_norm=1.0) for made in (recorder, None))
    before = {name: weight.detach().clone() for name, weight in launched.weights.items()}
    for number, batch in enumerate([*BATCHES, *BATCHES], start=1):
        given, expected = (made.launch(number, [batch]).measured for made in (replayed, launched))
        torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)
    assert len(recorder.recordings) == 2
    for name, weight in launched.weights.items():
        assert (replayed.weights[name] - weight).norm() <= 0.15 * (weight - before[name]).norm(), name


@pytest.mark.parametrize("knobs", [{"dropout": 0.1}, {"lora_r": 4, "lora_dropout": 0.2}], ids=str)
def test_each_replay_draws_numbers_of_its_own(toy, knobs):
    recorder = CpuRecorder()
    made = stepper(toy, recorder, learning_rate=1e-9, **knobs)
    measured = [made.launch(number, [BATCHES[0]]).measured for number in range(1, 13)]
    assert len(recorder.recordings) == 2
    losses, norms = torch.stack(measured)[2:].T  # replayed
    assert len(set(losses.tolist())) == len(losses)
    launched = stepper(toy, None, learning_rate=1e-9, **knobs)
    expected = torch.stack([launched.launch(number, [BATCHES[0]]).measured for number in range(1, 11)])
    torch.testing.assert_close(losses.mean(), expected[:, 0].mean(), rtol=0.02, atol=0.0)
    torch.testing.assert_close(norms.mean(), expected[:, 1].mean(), rtol=0.2, atol=0.0)


def test_batches_in_parts_are_launched_among_others_that_are_replayed(toy):
    """Their sums are kept in another format, and not in the memory that graphs write to."""
    recorder = CpuRecorder()
    replayed, launched = stepper(toy, recorder), stepper(toy, None)
    parts = [micro_batch(5, labels=42), micro_batch(6, labels=42)]
    for number, batch in enumerate([BATCHES[:1], BATCHES[1:2], parts, BATCHES[:1], parts], start=1):
        given, expected = (made.launch(number, batch).measured for made in (replayed, launched))
        torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)
    assert len(recorder.recordings) == 2


class Failing(CpuRecorder):
    def record(self, work):
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with TORCH_USE...")


class Wrong(CpuRecorder):
    """Loses an operation of the forward graph, or of the backward one."""

    def __init__(self, is_lost):
        super().__init__()
        self.is_lost = is_lost  # of an operation, by its name

    def record(self, work):
        result, recording = super().record(work)
        lost = [index for index, step in enumerate(recording.operations) if self.is_lost(str(step[0]))]
        if lost:
            del recording.operations[lost[len(lost) // 2]]
        return result, recording


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Failing(), "operation not permitted when stream is capturing"),
        (Wrong(lambda name: name == "aten.addmm.default"), "they differ from the launches"),
        (Wrong(lambda name: name == "aten.mm.out"), "they differ from the launches"),
        (Wrong(lambda name: "_foreach_copy_" in name), "they differ from the launches"),
    ],
    ids=["fails", "lacks a product", "lacks a weight's gradient", "lacks a norm's gradient"],
)
def test_a_graph_that_cannot_be_made_or_is_wrong_costs_a_line_and_no_step(toy, caplog, recorder, reason):
    replayed, launched = stepper(toy, recorder), stepper(toy, None)
    for number, batch in enumerate([*BATCHES, *BATCHES], start=1):
        given, expected = (made.launch(number, [batch]).measured for made in (replayed, launched))
        torch.testing.assert_close(given, expected, rtol=0.01, atol=0.01)
    (line,) = caplog.messages
    assert reason in line
    assert "\n" not in line


def test_the_next_training_of_a_model_goes_through_the_graphs_of_the_last(toy, monkeypatch):
    """Its weights are put back as they were, its optimizer is new; and other weights need graphs of their own."""
    recorder = CpuRecorder()
    monkeypatch.setattr(recorder_module, "recorder_for", lambda device: recorder)
    kept = KeptLayers()
    whisper = model.load(toy_whisper.config(toy))
    untouched = {name: value.clone() for name, value in whisper.model.state_dict().items()}
    recorded = []
    measured = []
    for knobs in ({}, {"learning_rate": 2e-3}, {}, {"freeze_encoder": True}, {}):
        config = toy_whisper.config(toy, **{"precision": "bf16", "learning_rate": 1e-3, **knobs})
        whisper.model.load_state_dict(untouched)
        trainable.prepare(whisper, config)
        made = Stepper(whisper, config, CPU, kept)
        measured.append([made.launch(step, [batch]).measured for step, batch in enumerate(BATCHES, start=1)])
        recorded.append(len(recorder.recordings))
    assert recorded == [2, 2, 2, 4, 6]
    for again in (measured[2], measured[4]):
        for given, expected in zip(again, measured[0], strict=True):
            torch.testing.assert_close(given, expected, rtol=0.01, atol=0.01)
    for given, expected in zip(measured[1][-1], measured[0][-1], strict=True):
        assert given != expected
