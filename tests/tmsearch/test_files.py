"""Files and folders are written as a whole, with the mode that the umask gives, whichever library writes them."""

import os
import signal
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.support import toy_whisper
from tmsearch import files
from tmsearch.export import model_folder, weights
from tmsearch.files import new_folder
from tmsearch.training import train


@pytest.fixture
def group_umask():
    previous = os.umask(0o027)
    yield
    os.umask(previous)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_checkpoints_log_mels_kept_weights_and_models_follow_the_umask(group_umask, tmp_path):
    toy = toy_whisper.whisper_folder(tmp_path / "toy")
    speech = toy_whisper.speech(toy_whisper.corpus_folder(tmp_path / "corpus"), tmp_path / "cache")
    config = toy_whisper.config(toy)
    result = train.train(config, speech, toy_whisper.stretch(tmp_path / "run", 2), lambda progress: None)
    weights.keep(result.checkpoint, tmp_path / "trial")
    whisper = weights.trained_model(config, weights.read(tmp_path / "trial" / weights.WEIGHTS))
    model_folder.export(whisper, tmp_path / "model")
    for folder in ("cache", "run", "trial", "model"):
        assert modes(tmp_path / folder) == {0o640}, folder


def test_weights_of_a_checkpoint_that_only_its_owner_reads_follow_the_umask(group_umask, tmp_path):
    (tmp_path / weights.WEIGHTS).touch(mode=0o600)
    weights.keep(tmp_path, tmp_path / "trial")
    assert modes(tmp_path / "trial") == {0o640}


KILLED = """
import os, signal, sys
from pathlib import Path
from tmsearch.files import new_folder
with new_folder(Path(sys.argv[1])) as scratch:
    (scratch / "half").mkdir()
    (scratch / "half" / "of-it").write_text("a half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_there_as_a_whole_or_not_at_all(group_umask, tmp_path):
    folder = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(folder)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(tmp_path.iterdir())) == 1, "what was half written"
    with new_folder(folder) as scratch:
        assert list(scratch.iterdir()) == [], "what a killed process left is deleted"
        (scratch / "whole").touch(mode=0o600)
        with pytest.raises(BlockingIOError), new_folder(folder):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert modes(folder) == {0o640}
    with pytest.raises(FileExistsError), new_folder(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_folder_that_fails_half_written_is_deleted(tmp_path):
    def fail():
        with new_folder(tmp_path / "out") as scratch:
            (scratch / "half").touch()
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def windows(monkeypatch):
    """What files.py asks Windows for, in its place; no folder can be opened there."""
    held = set()

    def locking(descriptor, mode, count):
        if os.fstat(descriptor).st_ino in held:
            raise PermissionError(13, "Permission denied")
        held.add(os.fstat(descriptor).st_ino)

    real_open = os.open

    def open_file(path, flags, *mode):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, *mode)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "open", open_file)


def test_a_new_folder_on_windows(windows, tmp_path):
    folder = tmp_path / "model"
    with files.new_folder(folder) as scratch:
        (scratch / "weights").write_bytes(b"1")
        with pytest.raises(BlockingIOError), files.new_folder(folder):
            pass
    assert (folder / "weights").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no lock is left"
    files.sync(folder)
    files.sync(folder / "weights")
