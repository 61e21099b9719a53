"""What a tracker gets of a run: what is committed, each step once, whatever is killed on the way."""

import dataclasses
import io

import pytest
import soundfile

from tests.support.audio_files import RecordedClip, tone, write_recordings
from tmsearch.evaluation.scores import ClipScore, write_scores
from tmsearch.tracking.__main__ import Answerer
from tmsearch.tracking.memory import Memory, memory_file
from tmsearch.tracking.tracker import TrackedRun
from tmsearch.training.state import StepMetrics
from tmsearch.training.tensorboard import TrialLog


class RecordingTracker:
    """A tracker that keeps what it gets in lists, and dies after so many entries where it is told to."""

    def __init__(self):
        self.entries, self.artifacts, self.finished, self.dies_after = {}, [], [], None

    def begin(self, run):
        self.run = run
        self.mine = self.entries.setdefault(run.id, [])
        return max((entry.step for entry in self.mine), default=0)

    def log(self, entries):
        for entry in entries:
            if self.dies_after is not None and len(self.mine) >= self.dies_after:
                raise ConnectionError("killed\nin the middle")
            self.mine.append(entry)

    def artifact(self, name, files):
        self.artifacts.append((name, sorted(files)))

    def finish(self):
        self.finished.append((self.run.id, self.run.facts["state"]))


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A trial of 8 steps with results at 4 and 8 whose training was killed at step 11: (folder, run)."""
    folder = tmp_path_factory.mktemp("trial")
    write_recordings(folder / "clips", [RecordedClip("a.wav", "one two", tone(0.5, 300.0))])
    with TrialLog(folder / "events", 0, {"learning_rate": 1e-4}) as log:
        for step in range(1, 12):
            log.add_step(StepMetrics(step, 1.0 / step, 1e-4, 2.0, 0.1))
    scores = [ClipScore("a.wav", "one two", "<b>one</b>", 0, 1, 0, 2), ClipScore("gone.wav", "x", "y", 1, 0, 0, 1)]
    for step in (4, 8):
        write_scores(folder, step, scores)
    run = TrackedRun(
        id="0123456789ab-0001",
        name="trial-0001",
        project="study-0123456789ab",
        params={"learning_rate": 1e-4, "model": "nano", "spec": True},
        facts={"state": "paused", "study": "study"},
        ended=False,
        failed=False,
        created=1.7e9,
        rungs=[(4, {"wer": 0.5, "cer": 0.25}), (8, {"wer": 0.4, "cer": 0.2})],
        data={"dataset": str(folder / "clips")},
        scores=str(folder),
        events=str(folder / "events"),
    )
    return folder, run


def mirrored(tracker, folder, run, name="fake"):
    answerer = Answerer(name, folder, lambda _: tracker)
    return answerer.answer(dataclasses.asdict(run), lambda line: None)


def test_curves_rates_and_clips_of_a_step_are_one_entry(trial, tmp_path):
    tracker = RecordingTracker()
    assert mirrored(tracker, tmp_path, trial[1]) == {"event": "mirrored", "complete": True}
    entries = tracker.entries[trial[1].id]
    assert [entry.step for entry in entries] == list(range(1, 9)), "past the last result nothing is committed"
    assert entries[0].scalars == pytest.approx({"loss": 1.0, "learning_rate": 1e-4, "gradient_norm": 2.0})
    assert entries[7].scalars == pytest.approx(
        {"loss": 0.125, "learning_rate": 1e-4, "gradient_norm": 2.0, "wer": 0.4, "cer": 0.2}
    )
    assert [bool(entry.worst_clips) for entry in entries] == [step in (4, 8) for step in range(1, 9)]
    first, second = entries[3].worst_clips
    assert (first.name, first.errors, first.hypothesis) == ("gone.wav", 1, "y") or first.name == "a.wav"
    sound = next(row.mp3 for row in (first, second) if row.name == "a.wav")
    assert len(soundfile.read(io.BytesIO(sound))[0]) >= 8000
    assert next(row.mp3 for row in (first, second) if row.name == "gone.wav") is None


def test_a_second_pass_logs_only_what_is_new(trial, tmp_path):
    tracker, (_, run) = RecordingTracker(), trial
    earlier = dataclasses.replace(run, rungs=run.rungs[:1])
    for state in (earlier, earlier, run, run):
        assert mirrored(tracker, tmp_path, state)["event"] == "mirrored"
    assert [entry.step for entry in tracker.entries[run.id]] == list(range(1, 9))
    assert Memory(memory_file(tmp_path, "fake")).signature(run.id) == run.signature


def test_killed_between_the_tracker_and_the_memory_nothing_is_doubled(trial, tmp_path):
    tracker, (_, run) = RecordingTracker(), trial
    tracker.dies_after = 5
    assert mirrored(tracker, tmp_path, run) == {"event": "failure", "reason": "ConnectionError: killed"}
    assert not memory_file(tmp_path, "fake").exists(), "it is written after the tracker has it"
    tracker.dies_after = None
    mirrored(tracker, tmp_path, run)
    memory_file(tmp_path, "fake").unlink()  # the tracker got all, the process died before it was remembered
    mirrored(tracker, tmp_path, run)
    assert [entry.step for entry in tracker.entries[run.id]] == list(range(1, 9))


def test_a_tracker_that_forgot_gets_nothing_twice(trial, tmp_path):
    """Offline files that were uploaded and cleaned away: the memory still knows."""
    tracker, (_, run) = RecordingTracker(), trial
    mirrored(tracker, tmp_path, run)
    tracker.entries.clear()
    mirrored(tracker, tmp_path, run)
    assert tracker.entries[run.id] == []


def test_steps_that_are_trained_again_are_waited_for(trial, tmp_path):
    """After a result without a checkpoint the events come a second time."""
    tracker, (_, run) = RecordingTracker(), trial
    with TrialLog(tmp_path / "events", 0, {}) as log:
        log.add_step(StepMetrics(1, 1.0, 1e-4, 2.0, 0.1))
    early = dataclasses.replace(run, events=str(tmp_path / "events"))
    assert mirrored(tracker, tmp_path, early) == {"event": "mirrored", "complete": False}
    assert [entry.step for entry in tracker.entries[run.id]] == [1]
    assert Memory(memory_file(tmp_path, "fake")).signature(run.id) is None
    mirrored(tracker, tmp_path, run)
    assert [entry.step for entry in tracker.entries[run.id]] == list(range(1, 9))


def test_a_trial_of_another_machine_has_its_rates(trial, tmp_path):
    tracker = RecordingTracker()
    run = dataclasses.replace(trial[1], events=None, scores=None)
    mirrored(tracker, tmp_path, run)
    entries = tracker.entries[run.id]
    assert [(entry.step, dict(entry.scalars), entry.time) for entry in entries] == [
        (4, {"wer": 0.5, "cer": 0.25}, 1.7e9 + 4),
        (8, {"wer": 0.4, "cer": 0.2}, 1.7e9 + 8),
    ]


def test_a_diverged_one_is_shown_to_its_last_step(trial, tmp_path):
    tracker = RecordingTracker()
    mirrored(tracker, tmp_path, dataclasses.replace(trial[1], ended=True, failed=True, rungs=[]))
    assert [entry.step for entry in tracker.entries[trial[1].id]] == list(range(1, 12))


def test_the_model_of_a_final_training_is_an_artifact_of_its_run(trial, tmp_path):
    tracker, (folder, run) = RecordingTracker(), trial
    final = dataclasses.replace(run, is_final=True, rungs=[], facts={"state": "running"})
    mirrored(tracker, tmp_path, final)
    assert tracker.artifacts == []
    model = {"config.json": str(folder / "clips-000004.jsonl")}
    ended = dataclasses.replace(final, ended=True, facts={"state": "finished"}, artifact=model)
    mirrored(tracker, tmp_path, ended)
    assert tracker.artifacts == [(f"{run.id}-model", ["config.json"])]
    assert tracker.finished[-1] == (run.id, "finished")
