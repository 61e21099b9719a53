"""Memory that does not suffice: how many clips go through the model at once."""

import dataclasses

import pytest
import torch

from search.execution.messages import CheckJob, Failure, Limit, ProgressEvent, SegmentJob, SegmentResult
from tests.support import toy_whisper
from tmsearch.model import trainable
from tmsearch.model.kv_cache import GroupedCrossCache
from tmsearch.training import micro_batch, saving
from tmsearch.training.micro_batch import BatchLimits, Probe
from tmsearch.training.state import TrainState
from tmsearch.training.step import Stepper
from tmsearch.training.train import ModelCache, train
from tmsearch.trial.__main__ import answer
from tmsearch.trial.facts import eval_batch_key, micro_batch_key
from tmsearch.trial.settings import TrialSettings
from tmsearch.trial.workbench import Workbench


def test_the_batch_is_halved_until_it_fits():
    tried = []

    def fits(clips):
        tried.append(clips)
        if clips > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clips <= 3

    assert micro_batch.largest(16, fits) == 2
    assert tried == [16, 8, 4, 2]
    assert micro_batch.largest(1, pytest.fail) == 1
    assert micro_batch.largest(6, lambda clips: False) == 1


def test_another_error_is_not_taken_for_lack_of_memory():
    def fails(clips):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        micro_batch.largest(4, fails)


def test_what_memory_depends_on_has_names_of_its_own(tmp_path):
    usual = {"batch_size": 4}
    configs = [
        {},
        {"batch_size": 8},
        {"lora_r": 4},
        {"freeze_encoder": True},
        {"freeze_encoder_layers": 2},
        {"context_seconds": 10.0},
        {"context_step": 2.0},
        {"low_memory": True},
        {"optimizer": "adamw_8bit"},
        {"gradient_checkpointing": True},
        {"precision": "float32"},
        {"dropout": 0.1},  # its masks are kept for the backward pass
        {"lora_r": 4, "lora_targets": "q_proj,v_proj,fc1"},
    ]
    keys = {micro_batch_key(toy_whisper.config(tmp_path, **{**usual, **knobs}), "cpu") for knobs in configs}
    assert len(keys) == len(configs)
    keys |= {eval_batch_key(toy_whisper.config(tmp_path), "cpu", full_context=full) for full in (False, True)}
    assert len(keys) == len(configs) + 2
    plain, rate = toy_whisper.config(tmp_path), toy_whisper.config(tmp_path, learning_rate=1e-5)
    assert micro_batch_key(rate, "cpu") == micro_batch_key(plain, "cpu")
    strong, weak = toy_whisper.config(tmp_path, dropout=0.2), toy_whisper.config(tmp_path, dropout=0.1)
    assert micro_batch_key(strong, "cpu") == micro_batch_key(weak, "cpu")


def test_a_cpu_takes_the_whole_batch_unless_told(tmp_path):
    assert micro_batch.find(toy_whisper.config(tmp_path), None, ModelCache()) == BatchLimits(4, 32)
    config = toy_whisper.config(tmp_path, micro_batch_size=3, eval_batch_size=5)
    assert micro_batch.find(config, None, ModelCache()) == BatchLimits(3, 5)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


@pytest.fixture
def measured(monkeypatch):
    """A GPU's memory as a CPU can tell it: what is asked of the device is noted, and its peak is what `peak` says."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)


def curve_of(config, speech, folder, cache):
    curve = []
    stretch = toy_whisper.stretch(folder, 2, micro_batch=2)
    train(config, speech, stretch, curve.append, model_cache=cache)
    return [(step.loss, step.grad_norm) for step in curve]


def gradients(cache, config):
    return [name for name, weight in cache.whisper(config).model.named_parameters() if weight.grad is not None]


@pytest.mark.parametrize("knobs", [{}, {"low_memory": True}, {"lora_r": 2}], ids=["full", "low memory", "adapters"])
def test_the_first_update_after_the_probe_is_that_without_one(toy, speech, tmp_path, measured, knobs):
    config = toy_whisper.config(toy, warmup_steps=0, **knobs)
    cache = ModelCache()
    limits = micro_batch.measure(config, speech, cache, torch.device("cpu"), limit=1.0)
    assert limits == BatchLimits(4, 32)
    held = [name for name, weight in cache._whisper.model.named_parameters() if weight.grad is not None]
    assert held == [], "they would fill the memory of whatever comes next"
    probed = curve_of(config, speech, tmp_path / "probed", cache)
    assert probed == curve_of(config, speech, tmp_path / "cold", ModelCache())


def test_a_model_is_handed_on_without_gradients(toy, speech):
    """Whatever left them: a probe, a step that was abandoned, weights that were put in afterwards."""
    config = toy_whisper.config(toy)
    cache = ModelCache()

    def fill(whisper):
        for weight in whisper.model.parameters():
            weight.grad = torch.ones_like(weight)

    fill(cache.whisper(config))
    assert gradients(cache, config) == []
    whisper = cache.whisper(config)
    fill(whisper)
    trainable.prepare(whisper, config)
    assert all(weight.grad is None for weight in whisper.model.parameters())
    weights = {name: weight.detach().clone() for name, weight in trainable.trainable_parameters(whisper).items()}
    fill(whisper)
    trainable.set_weights(whisper, weights)
    assert all(weight.grad is None for weight in trainable.trainable_parameters(whisper).values())


def test_a_step_that_was_abandoned_leaves_nothing_in_the_next(toy, speech, monkeypatch):
    """Memory that runs out in its second backward pass: what a probe meets, and whoever catches the error."""
    config = toy_whisper.config(toy, warmup_steps=0)

    def norm(abandon):
        state = TrainState(config, speech, ModelCache().whisper(config), torch.device("cpu"))
        if abandon:
            batch = list(state.batches.micro_batches(1, 2))

            def cut_off():
                yield batch[0]
                raise torch.OutOfMemoryError("CUDA out of memory")

            with pytest.raises(torch.OutOfMemoryError):
                state.stepper.launch(1, cut_off())
        return state.stepper.launch(1, state.batches.micro_batches(1, 2)).measured.tolist()

    assert norm(abandon=True) == norm(abandon=False)


def test_the_probe_meets_all_gradients_and_skips_no_layer(toy, speech, measured, monkeypatch):
    """Three backward passes where a step has as many, both moments, and each layer though a training skips some."""
    config = toy_whisper.config(toy, batch_size=8, stochastic_depth=0.9)
    probe = Probe(config, speech, ModelCache(), torch.device("cpu"))
    passes = []
    backward = Stepper.backward

    def watched(self, part):
        held = [name for name, weight in self.weights.items() if weight.grad is not None]
        moments = [name for name, weight in self.weights.items() if "exp_avg_sq" in self.optimizer.state[weight]]
        passes.append((len(part.decoder_inputs), len(held), len(moments)))
        return backward(self, part)

    monkeypatch.setattr(Stepper, "backward", watched)
    probe.step_peak(8)
    every = len(probe._state.stepper.weights)
    assert passes == [(8, 0, 0), (8, 0, every)]
    passes.clear()
    probe.step_peak(2)
    assert passes == [(2, 0, every), (2, every, every), (2, every, every)] * 2


def test_training_and_evaluation_are_measured_each_by_itself(toy, speech, monkeypatch):
    """A device on which only 2 clips train, and only 3 are decoded, says so of each."""
    monkeypatch.setattr(Probe, "step_peak", lambda self, clips: 100 * clips)
    monkeypatch.setattr(Probe, "evaluation_peak", lambda self, clips: 70 * clips)
    config = toy_whisper.config(toy, eval_batch_size=12)
    limits = micro_batch.measure(config, speech, ModelCache(), torch.device("cpu"), limit=250)
    assert limits == BatchLimits(2, 3)


@pytest.mark.parametrize(
    ("workers", "free", "reserved", "expected"), [(1, 70, 5, 75), (1, 10, 5, 15), (2, 70, 5, 40), (4, 70, 5, 20)]
)
def test_workers_that_share_a_gpu_share_its_memory(monkeypatch, workers, free, reserved, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    limit = micro_batch.memory_limit(torch.device("cuda"), workers)
    assert limit == pytest.approx(micro_batch.SAFE_SHARE * expected)


def segment(toy, tmp_path, report, **fields):
    """A workbench with the toy corpus checked, and a job of four steps on it; its baseline is known but for `facts`."""
    corpus = toy_whisper.corpus_folder(tmp_path / "corpus")
    data = {"dataset": str(corpus), "validation": 4, "test": 0}
    workbench = Workbench()
    checked = answer(
        workbench, CheckJob(data, ({"model": str(toy)},), measure=False, objective="wer"), report, lambda: False
    )
    settings = TrialSettings(data, 4, 1, str(tmp_path / "cache"), str(tmp_path / "tensorboard"))
    job = SegmentJob(
        number=0,
        token=1,
        params={"model": str(toy), "batch_size": 4, "warmup_steps": 0},
        first_step=0,
        last_step=4,
        seed=0,
        folder=str(tmp_path / "study/trials/0"),
        facts={"data": checked.data, f"baseline:{toy}": {"wer": 1.0}},
        settings=settings.to_json(),
    )
    return workbench, dataclasses.replace(job, **fields)


def limits_of(events):
    return [(limit.key.partition(":")[0], limit.value) for limit in events if isinstance(limit, Limit)]


def test_a_trial_that_runs_out_of_memory_resumes_with_half_the_clips(toy, tmp_path, monkeypatch):
    """The whole segment, with a device that takes no more than two clips and forgets so at step 3."""
    events = []
    done = []
    backward = Stepper.backward

    def limited(self, micro_batch):
        if len(micro_batch.decoder_inputs) > 2 and len(done) >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return backward(self, micro_batch)

    monkeypatch.setattr(Stepper, "backward", limited)
    monkeypatch.setattr(saving, "SAVE_SECONDS", 1e-9)
    monkeypatch.setattr(saving, "SHARE", float("inf"))

    def report(event):
        events.append(event)
        if isinstance(event, ProgressEvent):
            done.append(event.step)

    workbench, job = segment(toy, tmp_path, report)
    result = answer(workbench, job, report, lambda: False)
    assert isinstance(result, SegmentResult), result
    assert result.metrics["micro_batch"] == 2
    limits = [event for event in events if isinstance(event, Limit)]
    assert [limit.value for limit in limits] == [4, 2]
    assert len({limit.key for limit in limits}) == 1
    # It resumed from the checkpoint at which memory ran out, or the one before if that was still being written.
    assert done in ([1, 2, 3, 4], [1, 2, 2, 3, 4])
    # The next trial starts with the micro-batch that the study remembers.
    events.clear()
    facts = {**job.facts, limits[0].key: 2}
    job = dataclasses.replace(job, facts=facts, folder=str(tmp_path / "study/trials/1"))
    assert answer(workbench, job, report, lambda: False).metrics["micro_batch"] == 2
    assert limits_of(events) == []


@pytest.fixture
def decoding(monkeypatch):
    """Batches that were decoded, and a limit on how many clips of one fit into memory."""
    batches = []
    limit = [1000]
    make = GroupedCrossCache.__init__

    def limited(self, step, encoded):
        clips = encoded.layout.clip_count
        if clips > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.75 GiB (the decoder's cache)")
        batches.append(clips)
        make(self, step, encoded)

    monkeypatch.setattr(GroupedCrossCache, "__init__", limited)
    return batches, limit


def test_memory_that_runs_out_in_an_evaluation_shrinks_the_evaluation(toy, tmp_path, decoding):
    batches, limit = decoding
    events = []
    workbench, job = segment(toy, tmp_path, events.append)
    free = answer(workbench, job, events.append, lambda: False)
    assert isinstance(free, SegmentResult), free
    assert batches == [4]
    assert limits_of(events) == [("micro_batch", 4)]
    events.clear()
    batches.clear()
    limit[0] = 1
    job = dataclasses.replace(job, folder=str(tmp_path / "study/trials/1"))
    tight = answer(workbench, job, events.append, lambda: False)
    assert isinstance(tight, SegmentResult), tight
    assert (tight.value, tight.metrics["errors"]) == (free.value, free.metrics["errors"])
    assert tight.metrics["micro_batch"] == 4, "the training is not to blame"
    assert batches == [1, 1, 1, 1]
    assert limits_of(events) == [("micro_batch", 4), ("eval_batch", 1)]
    # The next trial starts with what the study remembers.
    remembered = {event.key: event.value for event in events if isinstance(event, Limit)}
    events.clear()
    limit[0] = 1000
    batches.clear()
    job = dataclasses.replace(job, facts={**job.facts, **remembered}, folder=str(tmp_path / "study/trials/2"))
    assert answer(workbench, job, events.append, lambda: False).value == free.value
    assert batches == [1, 1, 1, 1]
    assert limits_of(events) == []


def test_a_baseline_that_runs_out_of_memory_shrinks_by_itself(toy, tmp_path, decoding):
    decoding[1][0] = 2
    events = []
    workbench, job = segment(toy, tmp_path, events.append)
    job = dataclasses.replace(job, facts={"data": job.facts["data"]}, last_step=1)
    assert isinstance(answer(workbench, job, events.append, lambda: False), SegmentResult)
    assert limits_of(events) == [("eval_batch", 2), ("micro_batch", 4), ("eval_batch", 2)]
    keys = {event.key for event in events if isinstance(event, Limit)}
    assert len(keys) == 3, "30 s of each clip and its own length take different memory"


def test_one_clip_that_cannot_be_scored_is_no_reason_to_train_with_fewer(toy, tmp_path, decoding):
    decoding[1][0] = 0
    events = []
    workbench, job = segment(toy, tmp_path, events.append)
    failure = answer(workbench, job, events.append, lambda: False)
    assert isinstance(failure, Failure)
    assert failure.failure == "oom"
    assert "scoring one clip at a time" in failure.reason
    assert limits_of(events) == [("micro_batch", 4)]
