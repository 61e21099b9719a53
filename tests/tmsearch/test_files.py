"""Files have the mode that the umask gives, whichever library writes them."""

import os
import stat

import pytest

from tests.support import toy_whisper
from tmsearch.export import model_folder, weights
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
