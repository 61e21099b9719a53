"""Folders with metadata.csv or metadata.jsonl: nested, with odd texts, and with files that cannot be read."""

import json

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
