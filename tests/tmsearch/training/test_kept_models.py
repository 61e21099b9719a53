"""Two models in one study: a change back reads no file, and no training notices."""

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.machine.host_memory import HostMemory
from tmsearch.training import checkpoints, kept_models, train
from tmsearch.training.train import ModelCache

PLENTY = HostMemory(total=100 << 30, free=90 << 30)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A small and a larger model."""
    folder = tmp_path_factory.mktemp("toys")
    small = toy_whisper.whisper_folder(folder / "small")
    return small, toy_whisper.whisper_folder(folder / "large", toy_whisper.Shape(d_model=24, ffn=48), seed=3)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


@pytest.fixture
def loaded(monkeypatch):
    """The models that were read from their files, with more memory than they need."""
    names = []
    load = train.model.load
    monkeypatch.setattr(train.model, "load", lambda config: names.append(config.model) or load(config))
    monkeypatch.setattr(kept_models, "host_memory", lambda: PLENTY)
    return names


def learnt(config, speech, folder, cache):
    """Every number of a checkpoint after one step, and how it scored."""
    done = train.train(config, speech, toy_whisper.stretch(folder, 1), lambda step: None, model_cache=cache)
    saved = checkpoints.load(done.checkpoint).tensors
    return {f"{group}/{name}": value for group, named in saved.items() for name, value in named.items()}, done.scores


def test_a_change_back_reads_no_file_and_equals_a_cold_start_to_the_bit(toys, speech, tmp_path, loaded):
    small, large = toys
    adapted = {"lora_r": 2, "dropout": 0.1}
    cache = ModelCache()
    for number, (model, knobs) in enumerate(
        [(small, {"low_memory": True}), (large, adapted), (small, {}), (large, {})]
    ):
        config = toy_whisper.config(model, **knobs)
        warm, scores = learnt(config, speech, tmp_path / f"warm{number}", cache)
        if number > 1:
            cold, cold_scores = learnt(config, speech, tmp_path / f"cold{number}", ModelCache())
            assert warm.keys() == cold.keys()
            assert [name for name in cold if not torch.equal(warm[name], cold[name])] == []
            assert scores == cold_scores
    assert loaded[:2] == [str(small), str(large)]
    assert len(loaded) == 2 + 2, "one reading a model; the cold starts read for themselves"


def test_a_model_that_waits_takes_its_memory_once(toys, loaded):
    small, large = toys
    cache = ModelCache()
    first = cache.whisper(toy_whisper.config(small))
    for weight in first.model.parameters():
        weight.grad = torch.ones_like(weight)
    cache.whisper(toy_whisper.config(large))
    waiting = cache._kept._models[str(small), None]
    addresses = {weight.data_ptr() for weight in waiting.untouched.values()}
    assert {weight.data_ptr() for weight in first.model.parameters()} == addresses
    assert all(weight.grad is None for weight in first.model.parameters())
    assert waiting.bytes == sum(weight.nbytes for weight in first.model.parameters())
    again = cache.whisper(toy_whisper.config(small))
    assert not {weight.data_ptr() for weight in again.model.parameters()} & addresses, "it will be trained in place"


def test_what_does_not_fit_is_read_again(toys, loaded, monkeypatch):
    small, large = toys
    monkeypatch.setattr(kept_models, "host_memory", lambda: HostMemory(total=100 << 30, free=24 << 30))
    cache = ModelCache()
    for model in (small, large, small):
        cache.whisper(toy_whisper.config(model))
    assert loaded == [str(small), str(large), str(small)]


def test_the_model_whose_turn_is_longest_ago_makes_room(toys, loaded, monkeypatch, tmp_path):
    small, large = toys
    third = toy_whisper.whisper_folder(tmp_path / "third")
    cache = ModelCache()
    for model in (small, large, third):
        cache.whisper(toy_whisper.config(model))
    assert [name for name, _ in cache._kept._models] == [str(small), str(large)]
    missing = HostMemory(total=100 << 30, free=(25 << 30) - 1)
    monkeypatch.setattr(kept_models, "host_memory", lambda: missing)
    cache._kept.make_room()
    assert [name for name, _ in cache._kept._models] == [str(large)], "one byte was lacking"
    cache.clear()
    assert not cache._kept._models
