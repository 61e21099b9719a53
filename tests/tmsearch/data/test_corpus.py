"""Folders of audio: every rate and format, what is dropped and why, and a fingerprint that notices a change."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data import sources
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


def test_every_rate_format_and_channel_count_becomes_16_khz_mono(tmp_path):
    kinds = {
        "a.wav": (8_000, 2, "PCM_16"),
        "b.flac": (44_100, 1, "PCM_24"),
        "c.ogg": (48_000, 2, "VORBIS"),
        "d.mp3": (22_050, 1, "MPEG_LAYER_III"),
        "e.wav": (16_000, 1, "FLOAT"),
        "f.aiff": (11_025, 3, "PCM_16"),
        "g.opus": (48_000, 1, "OPUS"),
    }
    clips = {
        name: (f"sentence {name}", tone(rate=rate, channels=channels), rate, subtype)
        for name, (rate, channels, subtype) in kinds.items()
    }
    corpus = open_folder(folder_of(tmp_path, clips))
    assert [clip.name for clip in corpus.clips] == sorted(kinds)
    for clip in corpus.clips:
        rate, channels, _ = kinds[clip.name]
        samples = corpus.samples(clip.name)
        assert (samples.dtype, samples.ndim) == (np.float32, 1)
        assert (clip.recording.sample_rate, clip.recording.channels) == (rate, channels)
        assert len(samples) == pytest.approx(8_000, abs=900)  # a lossy codec pads to whole packets
        assert clip.seconds == pytest.approx(len(samples) / 16_000, abs=1e-3)
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * 16_000 / len(samples) == pytest.approx(440, abs=4), clip.name
        assert np.abs(samples[2_000:6_000]).max() == pytest.approx(0.4, rel=0.05), clip.name


def test_channels_are_averaged(tmp_path):
    left = tone(channels=1)
    both = np.concatenate([left, -0.5 * left], axis=1)
    corpus = open_folder(folder_of(tmp_path, {"a.wav": ("hello", both, 16_000, "FLOAT")}))
    np.testing.assert_allclose(corpus.samples("a.wav"), 0.25 * left[:, 0], atol=1e-7)


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


def test_folders_in_folders_json_lines_and_other_columns(tmp_path):
    folder_of(tmp_path / "one", {"a.wav": ("turn left", tone(), 16_000, "PCM_16")})
    folder_of(tmp_path / "two/clips", {"a.wav": ("second", tone(), 16_000, "PCM_16")})
    (tmp_path / "two/clips/metadata.csv").unlink()
    rows = [{"file_name": "clips/a.wav", "transcription": "turn\u2028right", "speaker": 7, "room": "x"}]
    (tmp_path / "two/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    soundfile.write(tmp_path / "two/unlisted.wav", tone(), 16_000)
    corpus = open_folder(tmp_path)
    assert [(clip.name, clip.group) for clip in corpus.clips] == [
        ("one/a.wav", ("turn left",)),
        ("two/clips/a.wav", ("turn right", "speaker=7")),
    ]
    assert any(note.startswith("1 audio files have no line") for note in corpus.notes)
    by_room = open_folder(tmp_path / "two", group_column="room")
    assert by_room.clips[0].group == ("turn right", "room=x")


def test_text_with_quotes_commas_and_line_ends(tmp_path):
    tmp_path.joinpath("metadata.csv").write_bytes(
        '\ufefffile_name,text\r\na.wav,"He said ""no"",\r\nthen left."\r\n'.encode()
    )
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    assert open_folder(tmp_path).clips[0].text == 'He said "no", then left.'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metadata.csv", b"file_name,words\na.wav,x\n", "no column of text is known"),
        ("metadata.csv", b"clip,text\na.wav,x\n", "no column of audio is known"),
        ("metadata.csv", b"file_name;text\na.wav;x\n", "its columns are file_name;text"),
        ("metadata.csv", b"file_name,text\na.wav,caf\xe9\n", "metadata.csv:2: not UTF-8"),
        ("metadata.csv", b"file_name,text,text\na.wav,x,y\n", "named twice"),
        ("metadata.csv", b'file_name,text\na.wav,"x" y\n', "metadata.csv:2"),
        ("metadata.csv", b"file_name,text\n", "not one row"),
        ("metadata.csv", b"", "no column of audio"),
        ("metadata.jsonl", b'{"file_name": "a.wav"', "metadata.jsonl:1: not JSON"),
        ("metadata.jsonl", b"[1, 2]\n", "metadata.jsonl:1: a list"),
    ],
)
def test_metadata_that_cannot_be_read_is_one_line(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    with pytest.raises(InputError) as error:
        open_folder(tmp_path)
    assert expected in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_named_itself_and_the_demo(tmp_path, monkeypatch):
    folder_of(tmp_path / "corpus", {"a.wav": ("hello", tone(), 16_000, "PCM_16")})
    assert len(open_folder(tmp_path / "corpus/metadata.csv").clips) == 1
    monkeypatch.setattr(sources, "DEMO", tmp_path / "corpus")
    assert len(load(DataConfig(dataset="demo")).clips) == 1


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
