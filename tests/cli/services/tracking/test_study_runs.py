"""A search with --track, by the command line, with a tracker that keeps what it gets."""

from contextlib import contextmanager

from tests.support.command import SPACE
from tests.support.in_process import tmsearch
from tests.support.study_builder import (
    HOSTILE_SAMPLED,
    HOSTILE_SPACE,
    StudyBuilder,
    data_fact,
    hostile_scores,
)
from tmsearch.cli.services import run_study
from tmsearch.tracking import choice


def test_a_missing_client_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "is_installed", lambda name: False)
    (tmp_path / "space.yaml").write_text(SPACE)
    done = tmsearch(tmp_path, "run", "--space", "space.yaml", "--track", "wandb")
    assert done.returncode == 2
    assert "--track wandb: its client is not installed; install the extra [wandb]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "studies").exists()


def test_a_study_keeps_its_trackers(tmp_path, monkeypatch):
    """The trials of a study that has ended are caught up; then the next command goes on with the same trackers."""
    rounds = []

    @contextmanager
    def recorded(names, following):
        rounds.append((tuple(names), following.runs()))
        yield lambda: None

    monkeypatch.setattr(run_study, "followed", recorded)
    monkeypatch.setattr(choice, "is_installed", lambda name: True)
    split = {"train": [], "validation": [score.name for score in hostile_scores(1)], "test": []}
    builder = StudyBuilder(tmp_path, HOSTILE_SPACE, "made_up").trials(1)
    builder.facts({"data": data_fact("f", 8, split), "words:0": [9] * 8})
    curve = {20: hostile_scores(3), 40: hostile_scores(2), 80: hostile_scores(1)}
    builder.trial(HOSTILE_SAMPLED, curve, "finished", reason="trained in full, 80 steps").build()
    done = tmsearch(tmp_path, "resume", "made_up", "--track", "trackio")
    assert done.returncode == 0, done.stderr
    assert "trackio show --project made_up-" in done.stdout
    names, runs = rounds[-1]
    assert names == ("trackio",)
    assert [run.facts["state"] for run in runs] == ["finished"]
    assert tmsearch(tmp_path, "resume", "made_up").returncode == 0
    assert [names for names, _ in rounds] == [("trackio",)] * 2
    worker = tmsearch(tmp_path, "worker", "made_up", TMSEARCH_TRACK="none")
    assert (worker.returncode, len(rounds)) == (0, 2), "a pool's workers leave it to the pool"
    assert tmsearch(tmp_path, "resume", "made_up", "--track", "none").returncode == 0
    assert tmsearch(tmp_path, "resume", "made_up", TMSEARCH_TRACK="mlflow").returncode == 0
    assert len(rounds) == 2
