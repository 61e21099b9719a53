"""A step's layers as graphs: recorded and replayed on a CPU, beside the same step launched."""

import contextlib
import dataclasses

import pytest
import torch

from tests.support import toy_whisper
from tests.support.recorder import CpuRecorder
from tests.support.varlen import by_mask
from tmsearch.config import TrainConfig
from tmsearch.model import attention, forward, trainable
from tmsearch.model import whisper as model
from tmsearch.model.kernels import bundles, captured, formulas
from tmsearch.model.kernels import recorder as recorder_module
from tmsearch.model.kernels.captured import CapturedLayers, Shape
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.kernels.trained_layers import KeptLayers
from tmsearch.model.layers import eager_layers
from tmsearch.training import step
from tmsearch.training.optim import mixed_precision
from tmsearch.training.step import Stepper
from tmsearch.training.token_table import TokenTable

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(attention, "varlen_attn", by_mask)
    monkeypatch.setattr(attention, "is_packed", lambda layer, device: True)
    monkeypatch.setattr(formulas, "compiled", lambda function: function)
    monkeypatch.setattr(mixed_precision, "compiled_update", lambda: mixed_precision.update)
    monkeypatch.setattr(step.devices, "uses_fused_kernels", lambda config, device, width: True)
    monkeypatch.setattr(captured, "ROWS_STEP", 64)
    monkeypatch.setattr(captured, "TOKENS_STEP", 4)


def micro_batch(seed, tokens=7, frames=(60, 120), labels=None):
    """Three clips: two of the first length, one of the second."""
    generator = torch.Generator().manual_seed(seed)
    mels = tuple(
        torch.randn(clips, 80, length, generator=generator) for clips, length in zip((2, 1), frames, strict=True)
    )
    inputs = torch.randint(0, 250, (3, tokens), generator=generator)  # [clips, tokens]
    count = 3 * tokens
    return forward.MicroBatch(mels, inputs, torch.arange(count), inputs.flatten() + 1, labels or count)


def stepper(toy, recorder, exact=False, **knobs):
    """A Stepper with graphs by `recorder`, None: without; in float64 where `exact`."""
    config = toy_whisper.config(toy, **{"precision": "float32" if exact else "bf16", "learning_rate": 1e-3, **knobs})
    whisper = model.load(config)
    torch.manual_seed(3)
    trainable.prepare(whisper, config)
    for name, weight in whisper.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)  # new adapters are zeros, before which nothing matters
    if exact:
        whisper.model.double()
    made = Stepper(whisper, config, CPU)
    if exact:
        made._kernels = FusedKernels(torch.float64)
        made._kernels.prepare(made.model, config.gradient_checkpointing)
        made.token_table = TokenTable(made.model)
        made._layers = eager_layers(made._kernels)
    made.model.train()
    if recorder is not None:
        draws = captured.draws(config)
        made.captured = CapturedLayers(made.model, made._layers, made._kernels, recorder, draws)
    return made


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


BATCHES = [
    micro_batch(0),
    micro_batch(1),  # captured
    micro_batch(2, tokens=6),  # fewer tokens, the same shape
    micro_batch(3, frames=(58, 110)),  # fewer rows, the same shape
    micro_batch(4),
]


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


def shapes_recorded(toy, batches, monkeypatch, **settings):
    """How many shapes are recorded by the end of each step."""
    for name, value in settings.items():
        monkeypatch.setattr(captured, name, value)
    recorder = CpuRecorder()
    made = stepper(toy, recorder)
    counts = []
    for number, batch in enumerate(batches, start=1):
        made.launch(number, [batch])
        counts.append(len(recorder.recordings) // 2)
    return counts


LONG = micro_batch(7, frames=(150, 200))
LONGER = micro_batch(8, frames=(190, 200))


def test_a_shape_is_recorded_when_it_is_met_again(toy, monkeypatch):
    assert shapes_recorded(toy, [BATCHES[0], LONG, BATCHES[1], LONG, BATCHES[2]], monkeypatch) == [0, 0, 1, 2, 2]


def test_a_batch_goes_through_larger_graphs_until_it_has_its_own(toy, monkeypatch):
    rows = []
    replay = captured._ShapeGraphs.replay_forward
    monkeypatch.setattr(
        captured._ShapeGraphs, "replay_forward", lambda graphs: rows.append(graphs.shape.rows) or replay(graphs)
    )
    batches = [LONGER, LONGER, LONG, LONG, LONG, BATCHES[0]]
    assert shapes_recorded(toy, batches, monkeypatch, ROWS_STEP=16, OWN_SIGHTINGS=3) == [0, 1, 1, 1, 2, 2]
    # By its own, then a smaller batch twice by the same and once by its own; the last is too small for either.
    assert rows[0] == rows[1] == rows[2] > rows[3]
    assert len(rows) == 4


def test_what_fills_up_a_batch_may_be_longer_than_its_clips(toy, monkeypatch):
    """Attention's launch is for clips of a certain length: rows behind it would be whatever was in memory."""
    monkeypatch.setattr(captured, "ROWS_STEP", 16)
    monkeypatch.setattr(captured, "MOST_FILLING", 8)
    replayed, launched = stepper(toy, CpuRecorder()), stepper(toy, None)
    for number, batch in enumerate([LONGER, LONGER, micro_batch(9, frames=(20, 30))], start=1):
        given, expected = (made.launch(number, [batch]).measured for made in (replayed, launched))
        torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)
    assert replayed.captured._sightings.total() == 3
    assert len(replayed.captured._graphs) == 1


def test_there_is_an_end_to_graphs(toy, monkeypatch):
    assert shapes_recorded(toy, [LONG, LONG, BATCHES[0], BATCHES[1]], monkeypatch, MOST_GRAPHS=1) == [0, 1, 1, 1]


def test_without_room_everything_is_launched(toy):
    recorder = CpuRecorder()
    recorder.room = False
    made = stepper(toy, recorder)
    for number in range(1, 5):
        made.launch(number, [BATCHES[0]])
    assert recorder.recordings == []
    assert recorder.asked == 1


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


@pytest.mark.parametrize(
    ("knobs", "is_capturable"),
    [
        ({}, True),
        ({"gradient_checkpointing": True}, True),
        ({"dropout": 0.1}, True),
        ({"stochastic_depth": 0.1}, False),
        ({"lora_r": 8, "lora_dropout": 0.05}, True),
        ({"dropout": 0.1, "gradient_checkpointing": True}, False),
        ({"lora_dropout": 0.1, "gradient_checkpointing": True}, True),  # of no adapters
        ({"low_memory": True}, True),
    ],
    ids=str,
)
def test_what_is_not_the_same_launches_in_every_step_is_not_captured(knobs, is_capturable):
    assert captured.is_capturable(TrainConfig(**knobs)) is is_capturable


def test_large_batches_are_filled_up_more_coarsely():
    ends = torch.tensor([0, 1], dtype=torch.int32)
    packed = attention.Packed((1,), 1, ends, None, torch.zeros(1))
    for rows, tokens, shape in ((2_000, 24, (2_048, 24)), (8_200, 64, (8_704, 64)), (9_000, 66, (9_216, 80))):
        filled_up = captured.shape_of(torch.zeros(rows, 1), torch.zeros(1, tokens, 1), packed, 448)
        assert (filled_up.rows, filled_up.tokens) == shape


def test_a_shape_has_no_more_tokens_than_the_decoder_has_positions():
    ends = torch.tensor([0, 70], dtype=torch.int32)
    packed = attention.Packed((70,), 70, ends, None, torch.zeros(4))
    for most, tokens in ((448, 8), (7, 7)):
        shape = captured.shape_of(torch.zeros(70, 4), torch.zeros(1, 6, 4), packed, most)
        assert shape == Shape(128, 1, tokens, False)


def test_filled_up_shapes():
    of_batch = Shape(1024, 16, 40, True)
    assert Shape(1024, 16, 48, True).holds(of_batch)
    assert Shape(1280, 16, 40, True).holds(of_batch)
    for other in ((1536, 16, 40, True), (512, 16, 40, True), (1024, 8, 40, True), (1024, 16, 32, True)):
        assert not Shape(*other).holds(of_batch)
    assert not Shape(1024, 16, 40, False).holds(of_batch)


class Cuda:
    """torch.cuda's part in a capture, noted."""

    def __init__(self, monkeypatch):
        self.events = []
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextlib.contextmanager
    def graph(self, *arguments, capture_error_mode):
        self.events.append((*arguments, capture_error_mode))
        yield
        self.events.append("end")


def test_both_passes_are_captured_in_one_pool_and_stream_for_this_thread_alone(monkeypatch):
    cuda = Cuda(monkeypatch)
    recorder = recorder_module.CudaRecorder(torch.device("cuda"))
    assert recorder.record(lambda: cuda.events.append("work") or 7) == (7, "graph")
    assert cuda.events == [("graph", "pool", "side", "thread_local"), "work", "end"]


@pytest.mark.parametrize(("value", "is_made"), [("", True), ("on", True), ("off", False)])
def test_a_variable_turns_graphs_off(monkeypatch, value, is_made):
    Cuda(monkeypatch)
    monkeypatch.setenv("TMSEARCH_CUDA_GRAPHS", value)
    assert (recorder_module.recorder_for(torch.device("cuda")) is not None) is is_made
    assert recorder_module.recorder_for(CPU) is None


@pytest.mark.parametrize(("free", "has_room"), [(20e9, True), (12e9, False)])
def test_room_is_three_times_what_a_pass_takes(monkeypatch, free, has_room):
    Cuda(monkeypatch)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 22e9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 32e9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 33e9)  # 11 of them are free again
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80e9))
    assert recorder_module.CudaRecorder(torch.device("cuda")).has_room() is has_room


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


def test_a_model_that_was_moved_gets_layers_of_its_own(toy, monkeypatch):
    monkeypatch.setattr(recorder_module, "recorder_for", lambda device: CpuRecorder())
    kept = KeptLayers()
    config = toy_whisper.config(toy, precision="bf16")
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    first = kept.get(whisper.model, config, CPU)
    assert kept.get(whisper.model, config, CPU) is first
    bias = whisper.model.model.encoder.layers[0].fc1.bias
    bias.data = bias.data.clone()
    assert kept.get(whisper.model, config, CPU) is not first
    kept.clear()
    assert kept._last is None


def test_another_thread_is_waited_for_before_a_graph_is_recorded(toy):
    recorder = CpuRecorder()
    made = stepper(toy, recorder)
    waited = []
    made.captured.before_capture = lambda: waited.append(len(recorder.recordings))
    for number, batch in enumerate(BATCHES, start=1):
        made.launch(number, [batch])
    assert waited == [0]
