"""A training with averaged weights: what is scored, kept and resumed, and that the training itself is untouched."""

import dataclasses

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import knob_values
from tmsearch.evaluation import evaluate
from tmsearch.export import weights as weight_files
from tmsearch.training import checkpoints, train
from tmsearch.training.micro_batch import Probe
from tmsearch.training.state import fingerprint
from tmsearch.training.train import ModelCache, TrainingStoppedError

SHARE = 0.6


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def quiet(progress):
    pass


def run(config, speech, stretch, **options):
    return train.train(config, speech, stretch, quiet, **options)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "knobs", [{}, {"low_memory": True}, {"lora_r": 2, "lora_dropout": 0.3}], ids=["full", "low memory", "adapters"]
)
def test_in_pieces_it_equals_the_unbroken_one_to_the_bit(toy, speech, tmp_path, knobs):
    config = toy_whisper.config(toy, average_share=SHARE, **knobs)
    whole = run(config, speech, toy_whisper.stretch(tmp_path / "whole", 6))
    with pytest.raises(TrainingStoppedError) as stopped:
        run(config, speech, toy_whisper.stretch(tmp_path / "parts", 4), stop=lambda: True)
    cache = ModelCache()
    rung = toy_whisper.stretch(tmp_path / "parts", 4, checkpoint=stopped.value.saved)
    at_rung = run(config, speech, rung, model_cache=cache)
    warm = toy_whisper.stretch(tmp_path / "warm", 6, first_step=4, checkpoint=at_rung.checkpoint)
    cold = toy_whisper.stretch(tmp_path / "cold", 6, first_step=4, checkpoint=at_rung.checkpoint)
    for parts in (run(config, speech, warm, model_cache=cache), run(config, speech, cold)):
        expected = checkpoints.load(whole.checkpoint).tensors
        tensors = checkpoints.load(parts.checkpoint).tensors
        assert tensors.keys() == expected.keys() == {"weights", "moments", "random", "average"}
        assert all(equal(tensors[group], expected[group]) for group in expected)
        assert parts.scores == whole.scores
    average = expected["average"]
    assert average.keys() == expected["weights"].keys(), "of adapters themselves alone"
    assert {value.dtype for value in average.values()} == {torch.float32}


def test_the_training_itself_is_the_one_without(toy, speech, tmp_path):
    plain = run(toy_whisper.config(toy), speech, toy_whisper.stretch(tmp_path / "plain", 5))
    averaged = run(toy_whisper.config(toy, average_share=SHARE), speech, toy_whisper.stretch(tmp_path / "averaged", 5))
    first, second = checkpoints.load(plain.checkpoint), checkpoints.load(averaged.checkpoint)
    assert "average" not in first.tensors
    for group in ("weights", "moments", "random"):
        assert equal(first.tensors[group], second.tensors[group])
    assert plain.scores != averaged.scores


def test_what_is_scored_is_what_is_kept_and_exported(toy, speech, tmp_path):
    config = toy_whisper.config(toy, average_share=SHARE)
    cache = ModelCache()
    result = run(config, speech, toy_whisper.stretch(tmp_path, 5), model_cache=cache)
    average = checkpoints.load(result.checkpoint).tensors["average"]
    assert equal(cache.trained_weights(), average)
    weight_files.keep(result.checkpoint, tmp_path / "kept")
    kept = weight_files.read(tmp_path / "kept" / weight_files.WEIGHTS)
    assert equal(kept, average)
    model = weight_files.trained_model(config, kept)
    scores, _ = evaluate.evaluate(model, speech, speech.split.validation, config)
    assert scores.clips == result.scores
    with cache.trained() as whisper:
        assert evaluate.evaluate(whisper, speech, speech.split.validation, config)[0].clips == result.scores


def test_an_evaluation_that_is_interrupted_leaves_the_weights_to_be_trained_on(toy, speech, tmp_path):
    config = toy_whisper.config(toy, average_share=SHARE)
    whole = run(config, speech, toy_whisper.stretch(tmp_path / "whole", 3))
    answers = iter([False, False, False, True])
    with pytest.raises(TrainingStoppedError) as stopped:
        run(config, speech, toy_whisper.stretch(tmp_path / "stopped", 3), stop=lambda: next(answers))
    saved = checkpoints.load(stopped.value.saved).tensors
    assert equal(saved["weights"], checkpoints.load(whole.checkpoint).tensors["weights"])


def test_what_its_checkpoints_take_is_known(toy, speech, tmp_path):
    cache = ModelCache()
    config = toy_whisper.config(toy, average_share=SHARE, low_memory=True)
    saved = run(config, speech, toy_whisper.stretch(tmp_path, 1), model_cache=cache).checkpoint
    content = checkpoints.load(saved).tensors
    written = sum(tensor.nbytes for group in ("weights", "moments", "average") for tensor in content[group].values())
    assert cache._state.checkpoint_bytes == pytest.approx(written, rel=0.01)


def test_the_probe_of_memory_holds_an_average_in_step_and_evaluation(toy, speech, monkeypatch):
    for name in ("reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    probe = Probe(toy_whisper.config(toy, average_share=SHARE), speech, ModelCache(), torch.device("cpu"))
    stepper = probe._state.stepper
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: len(stepper.average.values))
    assert probe.step_peak(2) == len(stepper.weights)
    entered = []
    in_place = stepper.average.in_place
    monkeypatch.setattr(stepper.average, "in_place", lambda: entered.append(True) or in_place())
    probe.evaluation_peak(2)
    assert entered == [True]


def test_off_it_is_the_training_of_before(toy):
    config = toy_whisper.config(toy)
    assert "average_share" not in knob_values(config), "recipes, checkpoints and studies keep their fingerprints"
    assert fingerprint(config) == fingerprint(dataclasses.replace(config, average_share=0))
    assert fingerprint(config) != fingerprint(dataclasses.replace(config, average_share=SHARE))
