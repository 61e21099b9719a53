"""The child's side of the seam: what it refuses, and how it names a failure."""

import dataclasses
import errno

import pytest
import torch

from tmsearch.config import DataConfig
from tmsearch.data.splits import split
from tmsearch.errors import InputError
from tmsearch.training.train import Diverged, Stopped
from tmsearch.trial import jobs

DATA = DataConfig(dataset="demo", validation=8, test=6)


def known(bench: jobs.Bench) -> dict:
    corpus = bench.corpus(DATA)
    return {"fingerprint": corpus.fingerprint, "clips": 200, "split": split(corpus, DATA).to_json()}


def test_a_study_trains_on_the_split_that_it_began_with(tmp_path):
    bench = jobs.Bench()
    facts = known(bench)
    facts["split"]["train"] = facts["split"]["train"][:3]
    assert len(bench.speech(DATA, facts, tmp_path).split.train) == 3
    assert bench.corpus(DATA) is bench.corpus(dataclasses.replace(DATA)), "loaded once"


def test_data_that_changed_since_is_refused(tmp_path):
    bench = jobs.Bench()
    with pytest.raises(InputError, match=r"demo changed since the study began \(199 clips then, 200 now\)"):
        bench.speech(DATA, {**known(bench), "fingerprint": "of yesterday", "clips": 199}, tmp_path)


@pytest.mark.parametrize(
    ("error", "failure", "said"),
    [
        (InputError("model: no such"), "input", "model: no such"),
        (Diverged("step 3: the loss is nan"), "diverged", "step 3"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "oom", "micro_batch_size"),
        (MemoryError(), "oom", "micro_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "oom", "micro_batch_size"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "disk", "No space left on device: /x/y"),
        (ZeroDivisionError("division by zero\nsecond line"), "bug", "ZeroDivisionError: division by zero"),
    ],
)
def test_failures_by_class(monkeypatch, error, failure, said):
    def fails(*_):
        raise error

    monkeypatch.setattr(jobs, "segment", fails)
    answer = jobs.answer(jobs.Bench(), {"job": "segment"}, lambda message: None, lambda: False)
    assert answer["event"] == "failure"
    assert answer["failure"] == failure
    assert said in answer["reason"]
    assert "\n" not in answer["reason"]


def test_a_stop_is_no_failure(monkeypatch, tmp_path):
    def stops(*_):
        raise Stopped(7, tmp_path)

    monkeypatch.setattr(jobs, "segment", stops)
    answer = jobs.answer(jobs.Bench(), {"job": "segment"}, lambda message: None, lambda: True)
    assert answer == {"event": "stopped", "step": 7}
