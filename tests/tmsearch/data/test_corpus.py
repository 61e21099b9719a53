"""Folders of audio: every rate and format, what is dropped and why, and a fingerprint that notices a change."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load, sentence_key
from tmsearch.errors import InputError

ROOT = Path(__file__).parents[3]
ASSETS = Path(os.environ.get("TMSEARCH_ASSETS", ROOT.parent / "shared/assets"))


def tone(seconds=0.5, rate=16_000, frequency=440.0, channels=1):
    wave = 0.4 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)
    return np.stack([wave] * channels, axis=1)


def folder_of(path, clips):
    """`clips`: file name -> (text, samples or None, rate, subtype)."""
    recorded = []
    for name, (text, samples, rate, subtype) in clips.items():
        container = "OGG" if name.endswith(".opus") else None
        recorded.append(RecordedClip(name, text, samples, rate, container, subtype))
    return write_recordings(path, recorded)


def open_folder(path, **settings):
    return load(DataConfig(dataset=str(path), **{"max_dropped": 0.0, **settings}))


def test_samples_are_decoded_once_and_cannot_be_written(tmp_path):
    corpus = open_folder(folder_of(tmp_path, {"a.wav": ("hello", tone(), 16_000, "PCM_16")}))
    first = corpus.samples("a.wav")
    (tmp_path / "a.wav").unlink()
    assert corpus.samples("a.wav") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1.0
    with pytest.raises(InputError, match=r"a\.wav"):
        corpus.decode("a.wav")


def test_unusable_clips_are_dropped_by_name_with_the_reason(tmp_path):
    good, rate = tone(), 16_000
    flipped = np.concatenate([good, -good], axis=1)
    clips = {
        "good.wav": ("fine", good, rate, "PCM_16"),
        "longest.wav": ("thirty seconds", tone(30.0, 8_000), 8_000, "PCM_16"),
        "long.wav": ("too long", tone(30.1, 8_000), 8_000, "PCM_16"),
        "empty.wav": ("nothing", np.zeros((0, 1)), rate, "PCM_16"),
        "silent.wav": ("hush", np.zeros((800, 2)), rate, "PCM_16"),
        "offset.wav": ("hush", np.full((800, 1), 0.25), rate, "PCM_16"),
        "cancelled.wav": ("hush", flipped, rate, "FLOAT"),
        "nan.wav": ("nan", np.where(good > 0.39, np.nan, good), rate, "FLOAT"),
        "wordless.wav": (" \t ", good, rate, "PCM_16"),
        "absent.wav": ("where", None, rate, ""),
        "bytes.wav": ("zero bytes", None, rate, ""),
        "noise.wav": ("no audio", None, rate, ""),
        "cut.flac": ("cut short", good, rate, "PCM_16"),
    }
    folder_of(tmp_path, clips)
    (tmp_path / "bytes.wav").write_bytes(b"")
    (tmp_path / "noise.wav").write_bytes(b"this is not audio" * 20)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:30])
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("good.wav,again\n,no name\nextra.wav,a comma, unquoted\n")
    corpus = open_folder(tmp_path, max_dropped=0.9)
    assert [clip.name for clip in corpus.clips] == ["good.wav", "longest.wav"]
    assert len(corpus.samples("longest.wav")) == 480_000
    reasons = {item.name: item.reason for item in corpus.dropped}
    expected = {
        "long.wav": "longer than 30 s: 30.1 s",
        "empty.wav": "empty",
        "silent.wav": "digital silence",
        "offset.wav": "digital silence",
        "cancelled.wav": "digital silence",
        "nan.wav": "NaN",
        "wordless.wav": "without text",
        "absent.wav": "missing",
        "bytes.wav": "empty",
        "noise.wav": "unreadable",
        "cut.flac": "unreadable",
        "good.wav": "second row",
        "metadata.csv:16": "no file_name",
        "extra.wav": "3 cells under 2 columns",
    }
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name], (name, reasons[name])


def test_more_dropped_than_allowed_stops_with_one_line(tmp_path):
    clips = {f"{index}.wav": (f"number {index}", tone(), 16_000, "PCM_16") for index in range(10)}
    folder_of(tmp_path, clips)
    for index in range(4):
        (tmp_path / f"{index}.wav").unlink()
    with pytest.raises(InputError) as error:
        open_folder(tmp_path, max_dropped=0.39)
    message = str(error.value)
    assert "4 of 10" in message
    assert "0.wav (its audio file is missing)" in message
    assert "and 1 more" in message
    assert "data.max_dropped" in message
    assert "\n" not in message
    assert len(open_folder(tmp_path, max_dropped=0.4).clips) == 6
    for index in range(4, 10):
        (tmp_path / f"{index}.wav").unlink()
    with pytest.raises(InputError, match="10 of 10"):
        open_folder(tmp_path, max_dropped=1.0)


def test_fingerprint_follows_names_texts_and_audio_but_not_order(tmp_path):
    clips = {name: (f"say {name}", tone(0.2), 16_000, "PCM_16") for name in ("a.wav", "b.wav")}
    before = open_folder(folder_of(tmp_path / "x", clips)).fingerprint
    assert open_folder(folder_of(tmp_path / "y", dict(reversed(clips.items())))).fingerprint == before
    prints = {before}
    retold = {**clips, "a.wav": ("say a.wav!", *clips["a.wav"][1:])}
    prints.add(open_folder(folder_of(tmp_path / "x", retold)).fingerprint)
    louder = {**clips, "a.wav": ("say a.wav", 1.01 * tone(0.2), 16_000, "PCM_16")}
    prints.add(open_folder(folder_of(tmp_path / "x", louder)).fingerprint)
    prints.add(open_folder(folder_of(tmp_path / "x", {"a.wav": clips["a.wav"]})).fingerprint)
    assert len(prints) == 4


def test_sentences_that_sound_alike_share_a_key():
    assert sentence_key("Don't go, over!", "en") == sentence_key("don\u2019t  GO over", "en")
    assert sentence_key("Channel twenty.", "en") == sentence_key("channel 20", "en")
    assert sentence_key("\u00dcber-Funk!", "de") == sentence_key("\u00fcber funk", "de")
    assert sentence_key("go left", "en") != sentence_key("go right", "en")
    assert sentence_key("...", "en") != ""


def test_loading_needs_no_torch(tmp_path):
    folder_of(tmp_path, {"a.wav": ("hello", tone(), 16_000, "PCM_16")})
    code = (
        "import sys\nfrom tmsearch import config\nfrom tmsearch.data import corpus\n"
        "from tmsearch.data_quality import summary\n"
        f"summary.describe(corpus.load(config.DataConfig(dataset={str(tmp_path)!r})))\n"
        "assert not {'torch', 'optuna', 'search', 'datasets'} & set(sys.modules), sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not (ASSETS / "allison-throat").is_dir(), reason="needs shared/assets/allison-throat")
def test_real_speech_loads_in_seconds():
    begun = time.monotonic()
    corpus = open_folder(ASSETS / "allison-throat")
    assert time.monotonic() - begun < 10
    assert len(corpus.clips) == 230
    assert sum(clip.seconds for clip in corpus.clips) == pytest.approx(13.6 * 60, rel=0.01)
