"""What a description says of a dataset whose every figure is known."""

import dataclasses
import json

import numpy as np
import pytest

from tests.support.audio_files import RecordedClip, tone, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.data.splits import split
from tmsearch.data_quality.microphones import Microphone
from tmsearch.data_quality.summary import bandwidth, describe


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    clips = []
    for index in range(20):
        rate = 8_000 if index < 5 else 16_000
        samples = tone(2 if index == 7 else 1, 500.0, rate, amplitude=0.25)
        if index < 4:
            samples = np.clip(8 * samples, -1.0, 1.0)
        samples += 1e-4 * generator.standard_normal(len(samples))
        text = "hold the line" if index in (2, 9, 11) else f"report number {index} now" + " over" * (index == 13) * 9
        speaker = {"speaker": f"s{index // 4}"}
        clips.append(RecordedClip(f"{index:02d}.wav", text, samples, rate, subtype="FLOAT", columns=speaker))
    clips.append(RecordedClip("absent.wav", "gone", None, columns={"speaker": "s0"}))
    write_recordings(tmp_path, clips)
    return DataConfig(dataset=str(tmp_path), validation=0.2, test=0.2)


def test_every_figure(data):
    corpus = load(data)
    parts = split(corpus, data)
    description = describe(corpus, parts, tokens=lambda text: 2 * len(text.split()))
    assert (description.clips, description.seconds, description.duration.median) == (20, 21.0, 1.0)
    assert description.longest[0] == ("07.wav", 2.0)
    assert dict(description.sample_rates) == {16_000: 15, 8_000: 5}
    assert dict(description.channels) == {1: 20}
    assert description.peak.median == pytest.approx(-12.04, abs=0.05)
    assert description.rms.median == pytest.approx(-15.05, abs=0.05)
    assert description.rms.high > -3
    assert description.clipped_clips == 0.2
    assert 0.1 < description.clipped_samples < 0.2
    assert description.bandwidth.median == pytest.approx(500, abs=70)
    assert description.sentences == 18
    assert description.repeated == (("hold the line", 3),)
    assert (description.labels[0].name, description.labels[0].words, description.labels[0].tokens) == ("13.wav", 13, 26)
    assert description.groups == (("speaker", 5),)
    assert description.dropped == (("absent.wav", "its audio file is missing"),)
    assert {title: part.clips for title, part in description.parts} == {
        "train": len(parts.train),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }


def test_text_fits_80_columns_and_says_it_all(data):
    corpus = load(data)
    text = describe(corpus, split(corpus, data)).text()
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("20, 21 s in all", "hold the line", "absent.wav: its audio file is missing", "8000 Hz (5)"):
        assert expected in text
    assert "validation" in text
    assert corpus.fingerprint in text.replace("\n", "") or corpus.fingerprint[:60] in text
    assert "validation" not in describe(corpus).text()


def test_what_a_microphone_sounds_like_is_not_cut_off(data):
    alone = Microphone("", None, 20, 1.2345e-7, is_throat=True)
    for heard in ([alone], [alone, dataclasses.replace(alone, column="audio.throat_microphone")]):
        lines = describe(load(data), microphones=heard).text().splitlines()
        assert sum(line.endswith("sounds like a throat microphone") for line in lines) == len(heard)


def test_json_is_json(data):
    corpus = load(data)
    description = describe(corpus, split(corpus, data))
    saved = json.loads(json.dumps(description.to_json(), allow_nan=False))
    assert saved["clips"] == 20
    assert saved["duration"]["median"] == 1.0
    assert saved["dropped"] == [["absent.wav", "its audio file is missing"]]


def test_bandwidth_of_tones_noise_and_next_to_nothing():
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    assert bandwidth(tone) == pytest.approx(1_000, abs=70)
    assert bandwidth(tone + 5) == pytest.approx(1_000, abs=70)
    assert bandwidth(noise) == pytest.approx(7_920, abs=100)
    assert bandwidth(np.zeros(100, dtype=np.float32)) == 0.0
    assert bandwidth(np.ones(1, dtype=np.float32)) == 0.0
