"""The child's side of the seam: what it refuses, and how it names a failure."""

import dataclasses
import errno
from pathlib import Path

import pytest
import torch

from search.execution.messages import Fact, Failure, SegmentJob, SegmentResult, SegmentStopped
from tests.support import toy_whisper
from tmsearch.config import DataConfig
from tmsearch.data.splits import split
from tmsearch.errors import InputError, UnavailableError
from tmsearch.training import checkpoints
from tmsearch.training.state import DivergenceError
from tmsearch.training.train import Result, TrainingStoppedError
from tmsearch.trial import check, jobs
from tmsearch.trial.__main__ import answer
from tmsearch.trial.facts import DataFacts, StudyFacts
from tmsearch.trial.settings import TrialSettings
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
        (OSError(errno.EMFILE, "Too many open files", "/x"), "machine", "Too many open files: /x; raise the limit"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "machine", "Permission denied: /x"),
        (OSError(errno.EIO, "Input/output error"), "disk", "Input/output error"),
        (OSError("no file named model.safetensors"), "bug", "OSError: no file named model.safetensors"),
        (ConnectionError("refused"), "machine", "ConnectionError: refused"),
        (RuntimeError("can't start new thread"), "machine", "can't start new thread; raise the limits"),
        (UnavailableError("cache: full"), "machine", "cache: full"),
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
    assert "None" not in result.reason


def test_a_stop_is_no_failure(monkeypatch, tmp_path):
    def stops(*_):
        raise TrainingStoppedError(7, tmp_path)

    monkeypatch.setattr(jobs, "run_segment", stops)
    assert answer(Workbench(), SEGMENT, lambda event: None, lambda: True) == SegmentStopped(7)


@pytest.mark.parametrize("kind", ["another configuration", "other knobs"])
def test_a_checkpoint_that_is_not_this_trainings_is_passed_by(tmp_path, kind):
    """As an upgrade or a copied folder leaves it; the training comes to what it comes to without."""
    workbench = Workbench()
    settings = TrialSettings(
        data=dataclasses.asdict(DATA), max_steps=4, threads=1, cache=str(tmp_path / "cache"), tensorboard=str(tmp_path)
    )
    facts = {"data": data_facts(workbench).to_json(), "baseline:demo/nano": {"wer": 1.0}}
    params = {"model": "demo/nano", "batch_size": 2, "warmup_steps": 0, "micro_batch_size": 2}
    params |= {"max_steps": 4, "learning_rate": 1e-3}
    folder = tmp_path / "d" / "trials" / "0000"
    segment = SegmentJob(0, 1, params, 0, 2, 0, str(folder), facts, settings.to_json())

    def trained(job):
        result = answer(workbench, job, lambda event: None, lambda: False)
        assert isinstance(result, SegmentResult), result
        return result.value, result.metrics["errors"]

    expected = trained(dataclasses.replace(segment, folder=str(tmp_path / "d" / "trials" / "0001")))
    if kind == "another configuration":
        trained(dataclasses.replace(segment, params=params | {"learning_rate": 1e-2}))
    else:
        trained(segment)
        claim = checkpoints.claim_folder(folder / "checkpoints", 1)
        saved = checkpoints.load(claim / "step-000002")
        weights = dict(list(saved.tensors["weights"].items())[1:])
        checkpoints.save(claim, dataclasses.replace(saved, tensors={**saved.tensors, "weights": weights}))
    assert trained(dataclasses.replace(segment, token=2)) == expected


@pytest.mark.parametrize("objective", ["wer", "wer_long", "mean"])
def test_the_value_is_the_objective_and_its_errors_by_clip_come_to_it(tmp_path, objective):
    """At the last rung every rate is measured, on validation clips alone; before it what the objective takes."""
    workbench = Workbench()
    data = dataclasses.replace(DATA, validation=4)
    corpus = workbench.corpus(data)
    facts = check.data_facts(corpus, split(corpus, data))
    cache = str(tmp_path / "cache")
    settings = TrialSettings(
        data=dataclasses.asdict(data),
        max_steps=2,
        threads=1,
        cache=cache,
        tensorboard=str(tmp_path),
        objective=objective,
    )
    params = {"model": "demo/nano", "batch_size": 2, "warmup_steps": 0, "learning_rate": 1e-3}
    folder = str(tmp_path / "d" / "trials" / "0000")
    segment = SegmentJob(0, 1, params, 0, 1, 0, folder, {"data": facts.to_json()}, settings.to_json())
    events = []
    first = answer(workbench, segment, events.append, lambda: False)
    last = answer(workbench, dataclasses.replace(segment, last_step=2, token=2), events.append, lambda: False)
    known = StudyFacts.from_json({event.key: event.value for event in events if isinstance(event, Fact)})
    for result in (first, last):
        assert isinstance(result, SegmentResult), result
        metrics = result.metrics
        assert result.value == metrics[objective]
        assert result.value == pytest.approx(sum(metrics["errors"]) / sum(known.words[0]))
    assert ("wer_long" in first.metrics) == (objective != "wer")
    assert last.metrics["mean"] == (last.metrics["wer"] + last.metrics["wer_long"]) / 2
    baseline = known.baselines["demo/nano"]
    assert baseline.rate(objective) == pytest.approx(sum(baseline.errors) / sum(known.words[0]))
    assert (baseline.wer_long is None) == (objective == "wer")


def test_an_objective_that_the_model_cannot_be_measured_by_is_refused():
    scored = Result(1, 0.5, 0.5, 0.4, 0, 1.0, 1.0, Path("x"), ())
    with pytest.raises(InputError, match=r"^budget\.objective: wer_long: the model knows no times; take wer"):
        jobs._rates(scored, "wer_long")


def test_what_is_forgotten_is_scored_untouched_and_at_the_end_and_never_chosen_by(tmp_path):
    keep = toy_whisper.corpus_folder(tmp_path / "clean", toy_whisper.TEXTS[:3])
    data = dataclasses.replace(DATA, validation=4, keep=str(keep))
    workbench = Workbench()
    corpus = workbench.corpus(data)
    facts = check.data_facts(corpus, split(corpus, data))
    folders = {"cache": str(tmp_path / "cache"), "tensorboard": str(tmp_path)}
    settings = TrialSettings(data=dataclasses.asdict(data), max_steps=2, threads=1, **folders)
    params = {"model": "demo/nano", "batch_size": 2, "warmup_steps": 0, "learning_rate": 1e-3}
    folder = str(tmp_path / "d" / "trials" / "0000")
    segment = SegmentJob(0, 1, params, 0, 1, 0, folder, {"data": facts.to_json()}, settings.to_json())
    events = []
    first = answer(workbench, segment, events.append, lambda: False)
    known = {event.key: event.value for event in events if isinstance(event, Fact)}
    untouched = StudyFacts.from_json(known).kept["demo/nano"]
    later = dataclasses.replace(segment, last_step=2, token=2, facts={"data": facts.to_json(), **known})
    events.clear()
    last = answer(workbench, later, events.append, lambda: False)
    assert isinstance(last, SegmentResult), last
    assert untouched > 0
    assert "wer_keep" not in first.metrics
    assert last.metrics["wer_keep"] > 0
    assert not any(isinstance(event, Fact) and event.key.startswith("keep:") for event in events), "once a study"
    assert last.value == last.metrics["wer"] == pytest.approx(sum(last.metrics["errors"]) / sum(known["words:0"]))
    plain = dataclasses.replace(settings, data=dataclasses.asdict(dataclasses.replace(data, keep=None)))
    alone = dataclasses.replace(later, folder=f"{folder}-alone", settings=plain.to_json())
    assert answer(workbench, alone, events.append, lambda: False).value == last.value
