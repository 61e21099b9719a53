"""Which columns are what, and the one line that lists them where that cannot be found."""

import pytest

from tmsearch.config import DataConfig
from tmsearch.data.columns import Columns, as_groups, as_text, find_columns
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
    assert by_name == Columns("File", "text", ("speaker",), "locale")
    assert find_columns("x", columns, ["throat"], DataConfig(dataset="x")).audio == "throat"
    named = DataConfig(dataset="x", audio_column="File", text_column="Sentence", group_column="locale")
    assert find_columns("x", columns, ["throat"], named) == Columns("File", "Sentence", ("locale",), "locale")


def test_cells_as_text():
    assert (as_text(None), as_text(float("nan")), as_text(7), as_text("x")) == (None, None, "7", "x")
    assert as_groups({"speaker": " 7 ", "session": " ", "room": None}, ["speaker", "session", "room"]) == {
        "speaker": "7"
    }
