"""Trainings on windows: they resume to the bit, and those without are what they were."""

import dataclasses

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import knob_values
from tmsearch.training import checkpoints, train
from tmsearch.training.state import fingerprint
from tmsearch.training.train import TrainingStoppedError


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def quiet(progress):
    pass


def differing(first, second):
    """The tensors in which two checkpoints differ."""
    groups = [checkpoints.load(folder).tensors for folder in (first, second)]
    return [
        name
        for group in groups[0]
        for name in groups[0][group]
        if not torch.equal(groups[0][group][name], groups[1][group][name])
    ]


def test_windows_with_times_and_prompts_resume_to_the_bit(speech, tmp_path):
    config = toy_whisper.config("demo/nano", window_share=0.6, window_prompts=0.5, clip_times=0.5, speed=0.1)
    whole = train.train(config, speech, toy_whisper.stretch(tmp_path / "whole", 3), quiet)
    with pytest.raises(TrainingStoppedError) as stopped:
        train.train(config, speech, toy_whisper.stretch(tmp_path / "parts", 3), quiet, stop=lambda: True)
    rest = toy_whisper.stretch(tmp_path / "parts", 3, checkpoint=stopped.value.saved)
    parts = train.train(config, speech, rest, quiet)
    assert differing(whole.checkpoint, parts.checkpoint) == []
    plain = toy_whisper.config("demo/nano", speed=0.1)
    single = train.train(plain, speech, toy_whisper.stretch(tmp_path / "single", 3), quiet)
    assert differing(whole.checkpoint, single.checkpoint)


def test_checkpoints_of_before_there_were_windows_are_still_of_the_same_training():
    config = toy_whisper.config("demo/nano")
    knobs = dataclasses.asdict(config)
    added = [name for name in knobs if name.startswith("window_") or name == "clip_times"]
    assert not set(added) & set(knob_values(config))
    windows = dataclasses.replace(config, window_share=0.5)
    assert set(added) <= set(knob_values(windows))
    assert fingerprint(windows) != fingerprint(config)
