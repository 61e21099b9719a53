"""Folders with metadata.csv or metadata.jsonl: nested, with odd texts, and with files that cannot be read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.support.audio_files import RecordedClip, tone, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.errors import InputError


def open_folder(path, **settings):
    return load(DataConfig(dataset=str(path), **{"max_dropped": 0.0, **settings}))


def test_folders_in_folders_json_lines_and_other_columns(tmp_path):
    write_recordings(tmp_path / "one", [RecordedClip("a.wav", "turn left", tone())])
    write_recordings(tmp_path / "two/clips", [RecordedClip("a.wav", "second", tone())])
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
        ("metadata.csv", b"file_name,text\n", "holds not one row; give it one for each recording"),
        ("metadata.csv", b"", "metadata.csv: is empty; give it columns of audio and text, such as file_name and text"),
        ("metadata.jsonl", b'{"file_name": "a.wav"', "metadata.jsonl:1: not JSON"),
        ("metadata.jsonl", b"[1, 2]\n", "metadata.jsonl:1: a list"),
        ("metadata.jsonl", b'{"file_name": ' + b"[" * 3000 + b"]" * 3000 + b"}", "metadata.jsonl:1: not read"),
        ("metadata.jsonl", b'{"file_name": "a.wav", "text": ' + b"7" * 5000 + b"}", "an integer of 5000 digits"),
        ("metadata.jsonl", b'{"file_name": "a.wav", "text": ["I","see"]}', "a.wav (its text is a list, not text)"),
        ("metadata.jsonl", b'{"file_name": ["a.wav"], "text": "x"}', "metadata.jsonl:1 (its file_name is a list, not"),
        ("metadata.jsonl", b'{"file_name": "a.wav", "text": 7}', "a.wav (its text is a number (7), not text)"),
        ("metadata.jsonl", b'{"file_name": "a.wav", "text": true}', "its text is true or false, not text"),
        ("metadata.csv", b"file_name\ttext\na.wav\tx\n", "separated by tabs"),
        ("metadata.csv", b"file_name,text,,\na.wav,x, y,\n", "3 cells under 2 columns; quote commas"),
        ("metadata.parquet", b"PAR1" + bytes(90), "not readable as parquet"),
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


def test_a_spreadsheets_empty_columns_and_rows_are_ignored(tmp_path):
    write_recordings(tmp_path, [RecordedClip("a.wav", "one", tone()), RecordedClip("b.wav", "two", tone())])
    (tmp_path / "metadata.csv").write_text(",file_name,text,,,\n0,a.wav,one,,,\n1,b.wav,two\n,,,,,\n,,,,,,,\n\n")
    corpus = open_folder(tmp_path)
    assert [(clip.name, clip.text) for clip in corpus.clips] == [("a.wav", "one"), ("b.wav", "two")]


def test_metadata_parquet_is_read_as_metadata_csv_is(tmp_path):
    for part in ("train", "test"):
        write_recordings(tmp_path / part, [RecordedClip("a.wav", part, tone(), columns={"speaker": part})])
    as_csv = open_folder(tmp_path)
    days = pa.array([2**62], type=pa.timestamp("us"))  # beyond Python's years
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").unlink()
        table = pa.table({"file_name": ["a.wav"], "text": [part], "speaker": [part], "day": days})
        pq.write_table(table, tmp_path / part / "metadata.parquet")
    as_parquet = open_folder(tmp_path)
    assert as_parquet.clips == as_csv.clips
    assert as_parquet.fingerprint == as_csv.fingerprint
    assert len(open_folder(tmp_path / "train/metadata.parquet").clips) == 1


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"\0\0\0 ftypM4A ", "m4a or MP4 (AAC): libsndfile does not read it; convert it: ffmpeg -i FILE FILE.flac"),
        (b"\xff\xf1P\x80", "AAC"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x1a\x45\xdf\xa3", "WebM"),
    ],
)
def test_what_is_not_read_as_audio_says_what_it_is_and_what_helps(tmp_path, content, hint):
    write_recordings(tmp_path, [RecordedClip("a.wav", "one", tone()), RecordedClip("b.m4a", "two", None)])
    (tmp_path / "b.m4a").write_bytes(content + bytes(200))
    assert hint in open_folder(tmp_path, max_dropped=0.5).dropped[0].reason
