"""Durations and sizes as people read them; hostile text is text, in Markdown and in a spreadsheet."""

import re

import pytest

from tests.support.study_builder import HOSTILE_TEXTS
from tmsearch.formatting import (
    LONGEST,
    clock_time,
    csv_cell,
    duration,
    estimated_duration,
    file_name,
    file_size,
    first_line,
    markdown,
    one_line,
)

HOSTILE = [*HOSTILE_TEXTS, *HOSTILE_TEXTS.values()]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_has_no_marks_and_no_links(text):
    shown = markdown(text)
    assert not re.search(r"[<>*`|\\\[\]~@]", re.sub(r"&#\d+;", "", shown))
    assert not re.search(r"://|www\.\w", shown)
    assert "\n" not in shown
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069]", shown)


def test_it_reads_as_it_was():
    assert markdown("learning_rate 1e-05, two-way (50 %)") == "learning_rate 1e-05, two-way (50 %)"
    assert markdown("a_ _b") == "a&#95; &#95;b"
    assert markdown("zwj \U0001f469\u200d\U0001f467") == "zwj \U0001f469\u200d\U0001f467"
    assert one_line(" a\n\tb \x00 ") == "a b \\u0000"
    assert one_line("x" * 10_000) == f"{'x' * LONGEST}... (10000 characters)"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " \t=1", "\r=1"])
def test_no_cell_is_a_formula(text):
    assert csv_cell(text).startswith("'")


def test_an_ordinary_cell_stays():
    assert csv_cell('he said = "no", twice') == 'he said = "no", twice'


def test_a_file_name_is_one():
    assert file_name("../../etc/<b>\u202epasswd") == "etc_b_passwd"
    assert file_name("...") == "clip"
    assert len(file_name("n" * 400)) == 48


@pytest.mark.parametrize(
    ("seconds", "clock", "rounded"),
    [(41.6, "0:42", "42 s"), (60, "1:00", "1 min"), (3723, "1:02:03", "62 min"), (12_240, "3:24:00", "3.4 h")],
)
def test_durations(seconds, clock, rounded):
    assert clock_time(seconds) == clock
    assert duration(seconds) == rounded


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "about 10 s"), (41, "about 40 s"), (720, "about 12 min"), (200_000, "about 56 h")]
)
def test_an_estimate_has_few_digits(seconds, text):
    assert estimated_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(900, "900 bytes"), (38_000, "38 kB"), (3_200_000, "3.2 MB"), (18_520_000_000, "18.5 GB")],
)
def test_file_sizes(count, text):
    assert file_size(count) == text
    assert file_size(18_520_000_000, 2) == "18.52 GB"


def test_an_error_in_one_line():
    assert first_line(ValueError("\nfirst\nsecond")) == "first"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 50), 20) == "x" * 17 + "..."
