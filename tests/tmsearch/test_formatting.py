"""Hostile text is text, in Markdown and in a spreadsheet."""

import re

import pytest

from tests.support.made_up import TEXTS
from tmsearch.quoting import LONGEST, cell, file_name, markdown, one_line

HOSTILE = [*TEXTS, *TEXTS.values()]


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
    assert cell(text).startswith("'")


def test_an_ordinary_cell_stays():
    assert cell('he said = "no", twice') == 'he said = "no", twice'


def test_a_file_name_is_one():
    assert file_name("../../etc/<b>\u202epasswd") == "etc_b_passwd"
    assert file_name("...") == "clip"
    assert len(file_name("n" * 400)) == 48
