"""Where files lie, and that a file appears whole or not at all."""

import pytest

from search import paths


def test_a_claims_checkpoints_lie_below_its_trial(tmp_path):
    trial = paths.trial_folder(paths.study_folder(tmp_path, "toy"), 7)
    claim = paths.claim_folder(trial, 3)
    assert claim == tmp_path / "toy" / "trials" / "0007" / "checkpoints" / "claim-000003"
    assert paths.discarded(claim).name == "claim-000003.discarded"


def test_only_finished_checkpoints_are_saved(tmp_path):
    claim = paths.claim_folder(tmp_path, 1)
    for name in ("step-000020", "step-000010", ".pending-step-000030"):
        (claim / name).mkdir(parents=True)
    assert [path.name for path in paths.saved_checkpoints(tmp_path)] == ["step-000010", "step-000020"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    paths.write_atomically(path, b"first")
    with monkeypatch.context() as patched:
        patched.setattr(paths.os, "fsync", lambda descriptor: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            paths.write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    paths.write_atomically(path, b"third")
    assert path.read_bytes() == b"third"
