"""The child's side of the seam: what it refuses, and how it names a failure."""

import dataclasses
import errno

import pytest
import torch

from search.execution.messages import Fact, Failure, ProgressEvent, SegmentJob, SegmentResult, SegmentStopped
from tests.support import toy_whisper
from tmsearch.config import DataConfig
from tmsearch.data.splits import split
from tmsearch.errors import InputError, UnavailableError
from tmsearch.export import weights
from tmsearch.training import checkpoints, saving
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
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "oom", "gradient_checkpointing: true"),
        (MemoryError(), "oom", "gradient_checkpointing: true"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "oom", "gradient_checkpointing: true"),
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


class Trials:
    """Trials of one small configuration, a segment at a time, in one process after the other."""

    def __init__(self, folder, max_steps=4, **changed):
        self.folder, self.workbench, self.facts = folder, Workbench(), None
        self.params = {"model": "demo/nano", "batch_size": 2, "warmup_steps": 0, "micro_batch_size": 2}
        self.params |= {"max_steps": max_steps, "learning_rate": 1e-3}
        self.settings = TrialSettings(
            data=dataclasses.asdict(DATA),
            max_steps=max_steps,
            threads=1,
            cache=str(folder / "cache"),
            tensorboard=str(folder / "events"),
            **changed,
        )
        self.steps = []  # that were trained

    def fresh_process(self):
        """But for the corpus, which takes longer to read than all that is trained here."""
        corpora = self.workbench._corpora
        self.workbench = Workbench()
        self.workbench._corpora = corpora

    def trial(self, number):
        return self.folder / "d" / "trials" / f"{number:04d}"

    def checkpoints(self, number):
        return sorted(
            str(path.relative_to(self.trial(number) / "checkpoints"))
            for path in self.trial(number).glob("checkpoints/*/*")
        )

    def run(self, number, token, first_step, last_step, stop=lambda: False, **changed):
        if self.facts is None:
            self.facts = {"data": data_facts(self.workbench).to_json(), "baseline:demo/nano": {"wer": 1.0}}
        params = self.params | changed
        job = SegmentJob(
            number,
            token,
            params,
            first_step,
            last_step,
            0,
            str(self.trial(number)),
            self.facts,
            self.settings.to_json(),
        )
        self.steps.clear()

        def report(event):
            if isinstance(event, ProgressEvent):
                self.steps.append(event.step)

        return answer(self.workbench, job, report, stop)


def outcome(result):
    assert isinstance(result, SegmentResult), result
    return result.value, result.metrics["errors"]


@pytest.fixture
def worth(monkeypatch):
    """What is worth saving: everything, unless the test says otherwise."""
    answers = {"worthwhile": True}
    for name in ("is_worthwhile", "is_cheaper"):
        monkeypatch.setattr(saving, name, lambda *_: answers["worthwhile"])
    return answers


@pytest.mark.parametrize("kind", ["another configuration", "other knobs"])
def test_a_checkpoint_that_is_not_this_trainings_is_passed_by(tmp_path, worth, kind):
    """As an upgrade or a copied folder leaves it; the training comes to what it comes to without."""
    trials = Trials(tmp_path)
    expected = outcome(trials.run(1, 1, 0, 2))
    if kind == "another configuration":
        outcome(trials.run(0, 1, 0, 2, learning_rate=1e-2))
    else:
        outcome(trials.run(0, 1, 0, 2))
        claim = checkpoints.claim_folder(trials.trial(0) / "checkpoints", 1)
        saved = checkpoints.load(claim / "step-000002")
        weights = dict(list(saved.tensors["weights"].items())[1:])
        checkpoints.save(claim, dataclasses.replace(saved, tensors={**saved.tensors, "weights": weights}))
    assert outcome(trials.run(0, 2, 0, 2)) == expected


def test_a_rung_that_was_not_saved_is_trained_again_to_the_bit_and_counted_apart(tmp_path, worth):
    """From the start, from an older checkpoint, from memory; the last rung leaves no checkpoint, but its weights."""
    trials = Trials(tmp_path, max_steps=3, keep_weights=True)
    saved_each = [trials.run(0, token, token - 1, token) for token in (1, 2, 3)]
    assert [result.metrics["saved_step"] for result in saved_each] == [1, 2, 2], "nothing goes on from the last rung"
    assert all(result.metrics["repeated_seconds"] == 0 for result in saved_each)
    assert trials.checkpoints(0) == ["claim-000002/step-000002"]
    for number, trained, newest in (
        (1, [[1], [1, 2], [1, 2, 3]], 0),
        (2, [[1], [2], [2, 3]], 1),
        (3, [[1], [2], [3]], 0),
    ):
        trials.fresh_process()
        for token in (1, 2, 3):
            if number != 3:
                trials.fresh_process()
            worth["worthwhile"] = token <= newest
            result = trials.run(number, token, token - 1, token)
            assert trials.steps == trained[token - 1]
            assert outcome(result) == outcome(saved_each[token - 1])
            assert result.metrics["saved_step"] == newest
            assert (result.metrics["repeated_seconds"] > 0) == (trials.steps[0] < token)
            assert result.metrics["train_seconds"] > 0
        assert trials.checkpoints(number) == (["claim-000001/step-000001"] if newest else [])
        kept = [weights.read(trials.trial(which) / weights.WEIGHTS) for which in (0, number)]
        assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_what_is_trained_again_is_in_the_log_once(tmp_path, worth):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    worth["worthwhile"] = False
    trials = Trials(tmp_path)
    outcome(trials.run(0, 1, 0, 2))
    trials.fresh_process()
    outcome(trials.run(0, 2, 2, 4))
    events = EventAccumulator(str(tmp_path / "events" / "0000"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("wer")] == [2, 4]


def test_a_stop_saves_what_would_be_dear_to_train_again(tmp_path, worth):
    trials = Trials(tmp_path)
    assert trials.run(0, 1, 0, 2, stop=lambda: True) == SegmentStopped(1)
    assert trials.checkpoints(0) == ["claim-000001/step-000001"]
    worth["worthwhile"] = False
    assert trials.run(1, 1, 0, 2, stop=lambda: True) == SegmentStopped(1)
    assert trials.checkpoints(1) == []
    answers = iter([False, False, True])  # in the midst of the evaluation
    worth["worthwhile"] = True
    assert trials.run(2, 1, 0, 2, stop=lambda: next(answers)) == SegmentStopped(2)
    assert trials.checkpoints(2) == ["claim-000001/step-000002"]


def test_a_checkpoint_is_hashed_once_a_process(tmp_path, worth, monkeypatch):
    """On its way from one rung to the next: in a warm process, in a fresh one, and where it is left and taken up."""
    sizes = []
    read = checkpoints._sha256
    monkeypatch.setattr(checkpoints, "_sha256", lambda path: sizes.append(path.stat().st_size) or read(path))
    trials = Trials(tmp_path, max_steps=8)
    outcome(trials.run(0, 1, 0, 2))
    outcome(trials.run(1, 1, 0, 2))
    outcome(trials.run(0, 2, 2, 4))
    assert sizes == [], "this process wrote it"
    trials.fresh_process()
    folder = next(trials.trial(0).glob("checkpoints/*/*"))
    content = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    outcome(trials.run(0, 3, 4, 6))
    assert sum(sizes) == content


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
    rates = {"wer": 0.5, "wer_raw": 0.5, "cer": 0.4, "loops": 0}
    seconds = dict.fromkeys(("train_seconds", "repeated_seconds", "eval_seconds"), 1.0)
    scored = Result(step=1, **rates, **seconds, saved=None, scores=(), eval_batch=1)
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
