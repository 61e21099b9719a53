"""Trainings with extra speech, noise and split texts: they resume to the bit, and what came before is what it was."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from tests.support import toy_whisper
from tests.support.audio_files import RecordedClip, voice, write_recordings
from tmsearch.config import DataConfig, ExtraData, knob_values
from tmsearch.data.augmentation.supplement import load_supplement
from tmsearch.data.corpus import load
from tmsearch.errors import CheckpointError
from tmsearch.training import checkpoints, train
from tmsearch.training.state import fingerprint, identity
from tmsearch.training.train import TrainingStoppedError

ALL = {"extra_share": 0.5, "noise_db": 5.0, "bpe_dropout": 0.2, "spec_time_masks": 1, "window_share": 0.3}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    own = toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")
    clips = [RecordedClip(f"{name}.wav", f"extra {name}", voice(1.0, pitch=100.0)) for name in "abc"]
    write_recordings(folder / "extra", clips)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(20_000), 16_000)
    extra = (ExtraData(str(folder / "extra"), throat=True),)
    data = DataConfig(dataset="corpus", extra=extra, noise=str(folder / "noise"))
    return dataclasses.replace(own, supplement=load_supplement(data, own.corpus, own.split, load))


def quiet(progress):
    pass


def weights(folder):
    return checkpoints.load(folder).tensors["weights"]


def test_a_training_with_all_of_it_resumes_to_the_bit(speech, tmp_path):
    config = toy_whisper.config("demo/nano", **ALL)
    whole = train.train(config, speech, toy_whisper.stretch(tmp_path / "whole", 3), quiet)
    with pytest.raises(TrainingStoppedError) as stopped:
        train.train(config, speech, toy_whisper.stretch(tmp_path / "parts", 3), quiet, stop=lambda: True)
    rest = toy_whisper.stretch(tmp_path / "parts", 3, checkpoint=stopped.value.saved)
    parts = weights(train.train(config, speech, rest, quiet).checkpoint)
    assert all(torch.equal(weight, parts[name]) for name, weight in weights(whole.checkpoint).items())
    elsewhere = dataclasses.replace(speech, supplement=dataclasses.replace(speech.supplement, fingerprint="other"))
    with pytest.raises(CheckpointError, match="made with another corpus"):
        train.train(config, elsewhere, rest, quiet)


def test_trainings_of_before_are_still_the_same_trainings(speech):
    config = toy_whisper.config("demo/nano")
    added = {"extra_share", "noise_db", "noise_share", "bpe_dropout"}
    assert not added & set(knob_values(config))
    for name in ("extra_share", "noise_db", "bpe_dropout"):
        changed = dataclasses.replace(config, **{name: ALL[name]})
        assert added & set(knob_values(changed)) == {name}
        assert fingerprint(changed) != fingerprint(config)
    alone = dataclasses.replace(speech, supplement=load_supplement(DataConfig("x"), speech.corpus, speech.split, load))
    assert identity(config, alone)["corpus"] == speech.corpus.fingerprint != identity(config, speech)["corpus"]
