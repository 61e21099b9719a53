"""What is called quiet around a clip's speech, and that no speech ever is."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from tests.support import toy_whisper
from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.evaluation import evaluate
from tmsearch.features.batches import Batches
from tmsearch.features.quiet import MARGIN_SECONDS, QuietEdges, quiet_edges
from tmsearch.model import whisper as model
from tmsearch.model.context import _places, thinned
from tmsearch.training.state import TrainState

RATE = 16_000
EXTRACTOR = WhisperFeatureExtractor()


def log_mel(samples):
    features = EXTRACTOR(samples, sampling_rate=RATE, truncation=False, padding="longest", return_tensors="np")
    return features["input_features"][0]


def noise(rng, seconds, level_db):
    return 10 ** (level_db / 20) * rng.standard_normal(round(seconds * RATE))


def voiced(rng, seconds):
    """Syllables of four a second: harmonics of 120 Hz, louder and softer."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * 120 * harmonic * time) / harmonic for harmonic in range(1, 20))
    return 0.1 * tones * (0.15 + np.abs(np.sin(2 * np.pi * 2 * time)))


def whispered(rng, seconds):
    """Syllables of noise, few decibels above that of the room."""
    time = np.arange(round(seconds * RATE)) / RATE
    return noise(rng, seconds, -46) * (0.3 + np.abs(np.sin(2 * np.pi * 2 * time)))


def clip(kind, lead, tail, room_db=-50, seed=0):
    rng = np.random.default_rng(seed)
    speech = {"voiced": voiced, "whispered": whispered, "clipped": voiced, "hum": voiced}[kind](rng, 3.0)
    samples = np.concatenate([np.zeros(round(lead * RATE)), speech, np.zeros(round(tail * RATE))])
    samples = samples + noise(rng, len(samples) / RATE + 1, room_db)[: len(samples)]
    if kind == "clipped":
        samples = np.clip(8 * samples, -1, 1)
    if kind == "hum":
        samples = samples + 0.5 * np.sin(2 * np.pi * 50 * np.arange(len(samples)) / RATE)
    return samples.astype(np.float32)


@pytest.mark.parametrize("kind", ["voiced", "whispered", "clipped", "hum"])
@pytest.mark.parametrize("seed", range(3))
def test_speech_and_a_margin_around_it_are_never_called_quiet(kind, seed):
    edges = quiet_edges(log_mel(clip(kind, 2.0, 3.0, seed=seed)))
    # The first and last syllables begin and end softly.
    assert edges.lead / 50 <= 2.0 - MARGIN_SECONDS + 0.1
    assert edges.end / 50 >= 5.0 + MARGIN_SECONDS - 0.1


@pytest.mark.parametrize("kind", ["voiced", "clipped", "hum"])
def test_what_is_quiet_is_known_as_such(kind):
    edges = quiet_edges(log_mel(clip(kind, 2.0, 3.0)))
    assert edges.lead / 50 >= 2.0 - MARGIN_SECONDS - 0.2
    assert edges.end / 50 <= 5.0 + MARGIN_SECONDS + 0.2


@pytest.mark.parametrize(("lead", "tail"), [(0.0, 0.0), (0.3, 0.2)])
def test_a_clip_without_quiet_edges_has_none(lead, tail):
    samples = clip("voiced", lead, tail)
    assert quiet_edges(log_mel(samples)) == QuietEdges(0, round(50 * len(samples) / RATE))


def test_where_speech_cannot_be_told_from_noise_nothing_is_quiet():
    rng = np.random.default_rng(1)
    samples = noise(rng, 6.0, -30).astype(np.float32)
    assert quiet_edges(log_mel(samples)) == QuietEdges(0, 300)
    assert quiet_edges(np.zeros((80, 400), np.float32)) == QuietEdges(0, 200)
    assert quiet_edges(np.zeros((80, 3), np.float32)) == QuietEdges(0, 2)


def test_a_clip_that_is_loud_at_once_at_its_end_keeps_it():
    """One word in the last tenth of a recording, as where a button was pressed late."""
    rng = np.random.default_rng(2)
    samples = np.concatenate([noise(rng, 8.0, -60), voiced(rng, 0.8)]).astype(np.float32)
    edges = quiet_edges(log_mel(samples))
    assert edges.end == 440
    assert edges.lead <= 50 * (8.0 - MARGIN_SECONDS) + 5


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces and margins that fit a toy's window of some seconds."""
    monkeypatch.setattr("tmsearch.model.context.LEAD_PIECES", 11)
    monkeypatch.setattr("tmsearch.model.context.TAIL_PIECES", 14)
    monkeypatch.setattr("tmsearch.features.quiet.MARGIN_SECONDS", 0.05)
    _places.cache_clear()
    yield
    _places.cache_clear()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def quiet_speech(tmp_path_factory):
    """Hums of .3 to .5 s in clips of 1.2 to 1.6 s, each at another place."""
    rng = np.random.default_rng(0)
    recorded = []
    for index, text in enumerate(toy_whisper.TEXTS):
        hum = voiced(rng, 0.3 + 0.02 * index)
        lead = noise(rng, 0.3 + 0.04 * index, -60)
        tail = noise(rng, 0.6 - 0.02 * index, -60)
        samples = np.concatenate([lead, hum + noise(rng, len(hum) / RATE, -60), tail])
        recorded.append(RecordedClip(f"{index:03d}.flac", text, samples.astype(np.float32)))
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(write_recordings(folder / "corpus", recorded), folder / "cache")


QUIET = {"context_quiet": True, "context_step": 0.1}


def test_a_batch_of_clips_with_quiet_edges_is_shorter_and_keeps_its_labels(toy, quiet_speech, small_pieces):
    whisper = model.load(toy_whisper.config(toy))
    plain = Batches(whisper, quiet_speech, toy_whisper.config(toy, context_step=0.1), torch.device("cpu"))
    quiet = Batches(whisper, quiet_speech, toy_whisper.config(toy, **QUIET), torch.device("cpu"))
    examples = quiet.examples(1)
    assert [example.name for example in examples] == [example.name for example in plain.examples(1)]
    lengths = [example.encoded_positions for example in examples]
    assert len(set(lengths)) < len(lengths)
    with_silence = [example.positions + len(thinned(100 - example.positions)) for example in examples]
    assert sum(lengths) < 0.8 * sum(with_silence)
    [batch] = quiet.micro_batches(1, 4)
    assert sorted(len(places) for group in batch.places for places in group) == sorted(lengths)
    # Behind the start token stand the labels of the clip whose log-mel is in the same place.
    rows = iter(batch.decoder_inputs.tolist())
    for mels, places in zip(batch.mels, batch.places, strict=True):
        assert len(mels) == len(places)
        for mel in mels:
            ids = next(rows)
            [name] = [
                name for _, name in quiet.rows(1) if torch.equal(mel, quiet.own.mels.batch([name], mel.shape[1])[0])
            ]
            assert ids[1 : len(quiet.own.labels[name])] == quiet.own.labels[name][:-1]


def test_a_clip_is_scored_alike_alone_and_among_others(toy, quiet_speech, small_pieces):
    config = toy_whisper.config(toy, **QUIET)
    whisper = model.load(config)
    whisper.model.eval()
    names = list(quiet_speech.split.train)
    together, _ = evaluate.evaluate(whisper, quiet_speech, names, config, eval_batch=8)
    alone, _ = evaluate.evaluate(whisper, quiet_speech, names, config, eval_batch=1)
    assert [clip.name for clip in together.clips] == names
    assert [clip.hypothesis for clip in together.clips] == [clip.hypothesis for clip in alone.clips]


def test_an_update_learns_from_clips_whose_quiet_is_thinned_and_repeats(toy, quiet_speech, small_pieces):
    losses = []
    for _ in range(2):
        whisper = model.load(toy_whisper.config(toy, **QUIET))
        state = TrainState(toy_whisper.config(toy, **QUIET), quiet_speech, whisper, torch.device("cpu"))
        losses.append([state.update(4)[0].loss for _ in range(6)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
