"""Memory that does not suffice: how many clips go through the model at once."""

import dataclasses

import pytest
import torch

from search.execution.messages import CheckJob, Limit, ProgressEvent, SegmentJob, SegmentResult
from tests.support import toy_whisper
from tmsearch.training import micro_batch, saving
from tmsearch.training.step import Stepper
from tmsearch.training.train import ModelCache
from tmsearch.trial.__main__ import answer
from tmsearch.trial.facts import micro_batch_key
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
        {"precision": "float32"},
    ]
    keys = {micro_batch_key(toy_whisper.config(tmp_path, **{**usual, **knobs}), "cpu") for knobs in configs}
    assert len(keys) == len(configs)
    rate, dropout = toy_whisper.config(tmp_path, learning_rate=1e-5), toy_whisper.config(tmp_path, dropout=0.1)
    assert micro_batch_key(rate, "cpu") == micro_batch_key(dropout, "cpu")


def test_a_cpu_takes_the_whole_batch_unless_told(tmp_path):
    assert micro_batch.find(toy_whisper.config(tmp_path), None, ModelCache()) == 4
    assert micro_batch.find(toy_whisper.config(tmp_path, micro_batch_size=3), None, ModelCache()) == 3


def test_a_trial_that_runs_out_of_memory_resumes_with_half_the_clips(tmp_path, monkeypatch):
    """The whole segment, with a device that takes no more than two clips and forgets so at step 3."""
    toy = toy_whisper.whisper_folder(tmp_path / "toy")
    corpus = toy_whisper.corpus_folder(tmp_path / "corpus")
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
    workbench = Workbench()
    data = {"dataset": str(corpus), "validation": 2, "test": 0}
    checked = answer(workbench, CheckJob(data, ({"model": str(toy)},), measure=False), events.append, lambda: False)

    def report(event):
        events.append(event)
        if isinstance(event, ProgressEvent):
            done.append(event.step)

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
    assert not [event for event in events if isinstance(event, Limit)]
