"""Whatever a file from elsewhere holds, it is read within bounds or refused in one line."""

import datetime
import os

import pytest

from tmsearch.foreign import parsers, plain_files
from tmsearch.foreign.plain_files import ForeignFileError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 3000 + "]" * 3000, "hundreds deep"),
        ('{"a":' * 100_000, "hundreds deep"),
        ("1" * 5000, "an integer of 5000 digits"),
        ('{"a": -' + "1" * 5000 + "}", "digits"),
        ('{"a"', "not JSON"),
    ],
)
def test_json_is_bounded(text, expected):
    with pytest.raises(ForeignFileError, match=expected) as error:
        parsers.parse_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("language: " + "[" * 3000 + "]" * 3000, "inside each other"),
        ("- " * 100_000, "inside each other"),
        ("language: [en", "not YAML"),
        ("language: !!python/object:os.system x", "not YAML"),
        ("a: !!int x", "not YAML"),
        ("a: \x07", "not YAML"),
    ],
)
def test_yaml_is_bounded(text, expected):
    if text.endswith("!!int x"):
        assert parsers.parse_yaml(text) == {"a": "x"}
        return
    with pytest.raises(ForeignFileError, match=expected) as error:
        parsers.parse_yaml(text)
    assert "\n" not in str(error.value)


def test_a_yaml_value_that_is_no_date_or_number_stays_text():
    text = f"day: 2024-99-99\nreal: 2024-02-03\nbig: {'1' * 5000}\nodd: 0x_\nclock: {'1:' * 5000}1\nn: 7\nx: 1.5\n"
    value = parsers.parse_yaml(text)
    assert value["day"] == "2024-99-99"
    assert value["real"] == datetime.date(2024, 2, 3)
    assert value["big"] == "1" * 5000
    assert value["odd"] == "0x_"
    assert (value["n"], value["x"]) == (7, 1.5)
    assert parsers.parse_yaml("base: &b {x: 1}\nnext: {<<: *b}")["next"] == {"<<": {"x": 1}}


def test_only_plain_files_of_limited_size_are_read(tmp_path):
    (tmp_path / "big").write_bytes(bytes(100))
    os.mkfifo(tmp_path / "pipe")
    assert plain_files.read_bytes(tmp_path / "big", 100) == bytes(100)
    for name, expected in {"big": "too large", "pipe": "a pipe", ".": "a folder", "/dev/zero": "a device"}.items():
        with pytest.raises(ForeignFileError, match=expected):
            plain_files.read_bytes(tmp_path / name, 99)
    with pytest.raises(ForeignFileError, match="cannot be read: No such file"):
        plain_files.read_text(tmp_path / "absent")


def test_a_table_without_its_empty_rows(tmp_path):
    header, rows = parsers.read_table("a, b\r\n1,2\r\n,\r\n\r\n , \r\n3,4\r\n,,,\r\n")
    assert header == ["a", "b"]
    assert list(rows) == [(2, ["1", "2"]), (6, ["3", "4"])]
    for text, name in {"a;b\n": "semicolons", "a\tb\n": "tabs", "sep=;\na;b\n": "semicolons", "a|b\n": "bars"}.items():
        with pytest.raises(ForeignFileError, match=name):
            parsers.read_table(text)
    long = "a,b\n1," + "x" * 200_000 + "\n"
    with pytest.raises(ForeignFileError, match="field larger than field limit") as error:
        list(parsers.read_table(long)[1])
    assert error.value.line == 2
