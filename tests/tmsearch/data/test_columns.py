"""Which columns are what, and the one line that lists them where that cannot be found."""

import pytest

from tmsearch.config import DataConfig
from tmsearch.data.columns import (
    AmbiguousColumnsError,
    CellError,
    Columns,
    as_groups,
    as_text,
    find_columns,
    segment_columns,
)
from tmsearch.errors import InputError


@pytest.mark.parametrize(
    ("columns", "typed_audio", "settings", "expected"),
    [
        (["speaker", "text"], [], {}, "audio_column"),
        (["audio", "speaker"], [], {}, "text_column"),
        (["audio", "sentence", "transcript"], [], {}, "text_column"),
        (["throat", "headset", "text"], ["throat", "headset"], {}, "several columns of audio (throat, headset)"),
        (["audio", "text"], [], {"group_column": "room"}, "group_column: no column room"),
        (["audio", "text"], [], {"audio_column": "throat"}, "audio_column: no column throat"),
    ],
)
def test_columns_that_cannot_be_found(columns, typed_audio, settings, expected):
    with pytest.raises(InputError) as error:
        find_columns("x.parquet", columns, typed_audio, DataConfig(dataset="x", **settings))
    assert expected in str(error.value)
    assert f"its columns are {', '.join(columns)}" in str(error.value)


def test_named_columns_come_first_then_types_then_names():
    columns = ["File", "throat", "Sentence", "text", "speaker", "locale"]
    by_name = find_columns("x", columns, [], DataConfig(dataset="x"))
    assert by_name == Columns("File", "text", ("speaker",), "locale", microphones=("File",))
    assert find_columns("x", columns, ["throat"], DataConfig(dataset="x")).audio == "throat"
    named = DataConfig(dataset="x", audio_column="File", text_column="Sentence", group_column="locale")
    expected = Columns("File", "Sentence", ("locale",), "locale", microphones=("File", "throat"))
    assert find_columns("x", columns, ["throat"], named) == expected


def test_columns_called_after_microphones_hold_audio_where_no_other_does():
    beside = ["file_name", "audio.sampling_rate", "text"]
    assert find_columns("x", beside, [], DataConfig(dataset="x")).audio == "file_name"
    assert find_columns("x", beside[1:], [], DataConfig(dataset="x")).audio == "audio.sampling_rate"
    with pytest.raises(AmbiguousColumnsError) as error:
        find_columns("x", ["audio.throat", "audio.air", "text"], [], DataConfig(dataset="x"))
    assert (error.value.key, error.value.choices) == ("audio_column", ("audio.throat", "audio.air"))
    with pytest.raises(AmbiguousColumnsError):
        find_columns("x", ["throat", "headset", "path", "text"], ["throat", "headset"], DataConfig(dataset="x"))


def test_groups_are_names_and_numbers():
    cells = {"speaker": " 7 ", "session": " ", "room": None, "client_id": 7}
    assert as_groups(cells, list(cells)) == {"speaker": "7", "client_id": "7"}


def test_a_cell_that_is_no_text_is_refused_by_its_type():
    cells = {"text": ["I", "see"], "count": 7, "speaker": {"id": 1}, "missing": float("nan"), "empty": None}
    assert as_text(cells, "missing") is None
    assert as_text(cells, "empty") is None
    with pytest.raises(CellError, match=r"its text is a list, not text"):
        as_text(cells, "text")
    with pytest.raises(CellError, match=r"its count is a number \(7\), not text"):
        as_text(cells, "count")
    with pytest.raises(CellError, match="its speaker is an object, not a name"):
        as_groups(cells, ["speaker"])


def test_columns_that_cut_a_part_out_of_a_recording():
    assert segment_columns(["audio_filepath", "offset", "duration"], "audio_filepath") == ("offset", "duration")
    assert segment_columns(["audio_filepath", "duration"], "audio_filepath") == ("", "duration")
    assert segment_columns(["audio", "start_time", "end_time"], "audio") == ("start_time", "end_time")
    assert segment_columns(["audio", "text", "duration"], "audio") == (), "in most datasets a remark"
    assert segment_columns(["audio", "start"], "audio") == ()
