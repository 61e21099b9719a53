"""The child's side of the seam: what it refuses, and how it names a failure."""

import dataclasses
import errno

import pytest
import torch

from search.execution.messages import Failure, SegmentJob, SegmentStopped
from tmsearch.config import DataConfig
from tmsearch.data.splits import split
from tmsearch.errors import InputError
from tmsearch.training.state import DivergenceError
from tmsearch.training.train import TrainingStoppedError
from tmsearch.trial import check, jobs
from tmsearch.trial.__main__ import answer
from tmsearch.trial.facts import DataFacts
from tmsearch.trial.workbench import Workbench

DATA = DataConfig(dataset="demo", validation=8, test=6)


SEGMENT = SegmentJob(0, 1, {}, 0, 2, 0, "", {}, {})


def data_facts(workbench: Workbench, **changed) -> DataFacts:
    corpus = workbench.corpus(DATA)
    return dataclasses.replace(check.data_facts(corpus, split(corpus, DATA)), **changed)


def test_a_study_trains_on_the_split_that_it_began_with(tmp_path):
    workbench = Workbench()
    facts = data_facts(workbench, train=data_facts(workbench).train[:3])
    assert len(workbench.speech(DATA, facts, tmp_path).split.train) == 3
    assert workbench.corpus(DATA) is workbench.corpus(dataclasses.replace(DATA)), "loaded once"


def test_data_that_changed_since_is_refused(tmp_path):
    workbench = Workbench()
    with pytest.raises(InputError, match=r"demo changed since the study was made \(199 clips then, 200 now\)"):
        workbench.speech(DATA, data_facts(workbench, fingerprint="of yesterday", clips=199), tmp_path)


@pytest.mark.parametrize(
    ("error", "failure", "said"),
    [
        (InputError("model: no such"), "input", "model: no such"),
        (DivergenceError("step 3: the loss is nan"), "diverged", "step 3"),
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

    monkeypatch.setattr(jobs, "run_segment", fails)
    result = answer(Workbench(), SEGMENT, lambda event: None, lambda: False)
    assert isinstance(result, Failure)
    assert result.failure == failure
    assert said in result.reason
    assert "\n" not in result.reason


def test_a_stop_is_no_failure(monkeypatch, tmp_path):
    def stops(*_):
        raise TrainingStoppedError(7, tmp_path)

    monkeypatch.setattr(jobs, "run_segment", stops)
    assert answer(Workbench(), SEGMENT, lambda event: None, lambda: True) == SegmentStopped(7)
