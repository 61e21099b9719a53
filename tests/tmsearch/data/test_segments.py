"""Rows that are a part of a longer recording train on that part alone."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.support.audio_files import tone
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load

RATE = 16_000


@pytest.fixture
def recording(tmp_path):
    """5.5 s that rise from 0 to 1: every part is known by its samples."""
    samples = np.linspace(0, 0.99, int(5.5 * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "s1.wav", samples, RATE, subtype="PCM_24")
    return tmp_path


def manifest(folder, *rows):
    lines = [json.dumps({"text": f"sentence {index}", **row}) for index, row in enumerate(rows)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return load(DataConfig(dataset=str(folder), max_dropped=1.0))


def test_a_row_with_offset_and_duration_is_cut_out(recording):
    corpus = manifest(recording, {"audio_filepath": "s1.wav", "offset": 1.0, "duration": 1.5})
    (clip,) = corpus.clips
    assert (clip.name, clip.seconds) == ("s1.wav", 1.5)
    whole, _ = soundfile.read(recording / "s1.wav", dtype="float32")
    np.testing.assert_array_equal(corpus.samples("s1.wav"), whole[RATE : int(2.5 * RATE)])


def test_parts_of_one_file_are_clips_of_their_own_and_the_same_whenever_they_are_read(recording):
    rows = [
        {"audio_filepath": "s1.wav", "offset": 0, "duration": 1},
        {"audio_filepath": "s1.wav", "offset": 1, "duration": 2.5},
        {"audio_filepath": "s1.wav", "offset": 1, "duration": 2.5},
    ]
    corpus = manifest(recording, *rows)
    assert [(clip.name, clip.seconds) for clip in corpus.clips] == [("s1.wav@0-1", 1.0), ("s1.wav@1-3.5", 2.5)]
    assert [(row.name, row.reason) for row in corpus.dropped] == [("s1.wav@1-3.5", "a second row of this name")]
    assert manifest(recording, *rows).fingerprint == corpus.fingerprint


@pytest.mark.parametrize(
    ("row", "seconds"),
    [
        ({"audio_filepath": "s1.wav", "duration": 1.5}, 1.5),  # NeMo's
        ({"audio_filepath": "s1.wav", "offset": 4.5}, 1.0),
        ({"file_name": "s1.wav", "start": 1.0, "end": 3.0}, 2.0),
        ({"file_name": "s1.wav", "start": "0:01.5", "end": "00:00:03.5"}, 2.0),
        ({"file_name": "s1.wav", "start_time": "1", "duration": "0.5"}, 0.5),
        # The whole file:
        ({"audio_filepath": "s1.wav", "offset": 0, "duration": 5.51}, 5.5),
        ({"audio_filepath": "s1.wav", "offset": 7.25, "duration": 5.5}, 5.5),  # cut out by somebody else
        ({"file_name": "s1.wav", "duration": 1.5}, 5.5),  # a remark
        ({"file_name": "s1.wav", "start": "2024-01-01 10:00", "end": "2024-01-01 11:00"}, 5.5),
    ],
)
def test_what_a_row_says_of_its_part(recording, row, seconds):
    assert [clip.seconds for clip in manifest(recording, row).clips] == [seconds]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"offset": 4.0, "duration": 3.0}, "its row ends at 7.0 s, its file at 5.5 s"),
        ({"offset": 1000, "duration": 1500}, "its row ends at 2500.0 s"),
        ({"offset": "soon", "duration": 1}, "its offset is 'soon', not seconds"),
        ({"offset": -1, "duration": 1}, "its offset is a number (-1), not seconds"),
        ({"offset": [1], "duration": 1}, "its offset is a list, not seconds"),
        ({"offset": 2, "duration": 0}, "before it starts"),
    ],
)
def test_a_part_that_is_not_in_the_file_is_dropped_by_name(recording, row, reason):
    soundfile.write(recording / "good.wav", tone(), RATE)
    corpus = manifest(recording, {"file_name": "good.wav"}, {"file_name": "s1.wav", **row})
    assert [clip.name for clip in corpus.clips] == ["good.wav"]
    assert corpus.dropped[0].name == "s1.wav"
    assert reason in corpus.dropped[0].reason


def test_parts_in_parquet(recording, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", recording / "cache")
    encoded = io.BytesIO((recording / "s1.wav").read_bytes()).getvalue()
    for audio in ("s1.wav", encoded):
        table = pa.table({"audio": [audio], "text": ["two"], "offset": [1.0], "duration": [1.5]})
        pq.write_table(table, recording / "x.parquet")
        assert [clip.seconds for clip in load(DataConfig(dataset=str(recording / "x.parquet"))).clips] == [1.5]
