"""A process that trains one thing after another: nothing of the one is in the other."""

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.model import whisper
from tmsearch.training import checkpoints, train, warm
from tmsearch.training.checkpoints import CheckpointError
from tmsearch.training.warm import ModelCache

ODD = (
    {"lora_r": 2, "lora_dropout": 0.3},
    {"low_memory": True},
    {"freeze_encoder": True, "dropout": 0.3, "stochastic_depth": 0.4},
    {"attention_dropout": 0.2, "freeze_encoder_layers": 1},
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def quiet(progress):
    pass


def weights(folder):
    return checkpoints.load(folder).tensors["weights"]


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("before", ODD, ids=str)
def test_a_training_does_not_depend_on_the_one_before_it(toy, speech, tmp_path, before):
    config = toy_whisper.config(toy, dropout=0.1)
    cold = train.train(config, speech, toy_whisper.stretch(tmp_path / "cold", 3), quiet)
    kept = ModelCache()
    train.train(
        toy_whisper.config(toy, **before), speech, toy_whisper.stretch(tmp_path / "before", 3), quiet, warm=kept
    )
    after = train.train(config, speech, toy_whisper.stretch(tmp_path / "after", 3), quiet, warm=kept)
    assert same(cold.checkpoint, after.checkpoint)
    assert cold.scores == after.scores
    if before == ODD[0]:  # and the adapters come back
        train.train(
            toy_whisper.config(toy, **before), speech, toy_whisper.stretch(tmp_path / "again", 3), quiet, warm=kept
        )
        assert same(tmp_path / "before/step-000003", tmp_path / "again/step-000003")


def test_the_same_model_is_read_from_the_disk_once(toy, speech, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(warm.model, "load", lambda config: loaded.append(config.model) or real(config))
    kept = ModelCache()
    for number, rate in enumerate((1e-3, 1e-2)):
        config = toy_whisper.config(toy, learning_rate=rate)
        train.train(config, speech, toy_whisper.stretch(tmp_path / str(number), 2), quiet, warm=kept)
    assert loaded == [str(toy)]
    other = toy_whisper.whisper_folder(tmp_path / "other", seed=5)
    train.train(toy_whisper.config(other), speech, toy_whisper.stretch(tmp_path / "2", 2), quiet, warm=kept)
    assert loaded == [str(toy), str(other)]


real = whisper.load


def test_the_next_rung_goes_on_without_reading_its_checkpoint(toy, speech, tmp_path, monkeypatch):
    config = toy_whisper.config(toy, dropout=0.2, speed=0.1)
    whole = train.train(config, speech, toy_whisper.stretch(tmp_path / "whole", 6), quiet)
    kept = ModelCache()
    rung = train.train(config, speech, toy_whisper.stretch(tmp_path / "rungs", 3), quiet, warm=kept)
    torch.rand(5)  # whatever else draws random numbers meanwhile
    further = toy_whisper.stretch(tmp_path / "rungs", 6, first_step=3, checkpoint=rung.checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "load", pytest.fail)
        done = train.train(config, speech, further, quiet, warm=kept)
    assert same(whole.checkpoint, done.checkpoint)
    assert whole.scores == done.scores
    assert 0 < done.train_seconds < whole.train_seconds + rung.train_seconds


def test_a_run_of_another_configuration_or_checkpoint_is_not_gone_on_with(toy, speech, tmp_path):
    config = toy_whisper.config(toy)
    kept = ModelCache()
    rung = train.train(config, speech, toy_whisper.stretch(tmp_path, 2), quiet, warm=kept)
    # The same configuration from its beginning: the kept run stands at step 2.
    again = train.train(config, speech, toy_whisper.stretch(tmp_path / "again", 2), quiet, warm=kept)
    assert same(rung.checkpoint, again.checkpoint)
    stretch = toy_whisper.stretch(tmp_path, 3, checkpoint=rung.checkpoint)
    with pytest.raises(CheckpointError, match="made with another config"):
        train.train(toy_whisper.config(toy, seed=4), speech, stretch, quiet, warm=kept)
