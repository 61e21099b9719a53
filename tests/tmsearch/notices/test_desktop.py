"""Notices on a desktop, by a notify-send of our own."""

import pytest

from tmsearch.notices import desktop


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder as the only one on PATH, and what makes a notify-send there."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(script):
        file = tmp_path / "notify-send"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return make


def test_the_first_line_is_the_title(program, tmp_path):
    program(f'for word in "$@"; do echo "[$word]" >> {tmp_path}/words; done')
    assert not desktop.is_missing()
    assert desktop.show("study throat: has ended\nbest: trial 7\nmore") is None
    words = "[--app-name=tmsearch]\n[--]\n[study throat: has ended]\n[best: trial 7\nmore]\n"
    assert (tmp_path / "words").read_text() == words


def test_a_failure_and_a_program_that_hangs_are_said(program, monkeypatch):
    program("exit 3")
    assert desktop.show("text") == "notify-send ended with 3"
    monkeypatch.setattr(desktop, "_SECONDS", 0.1)
    program("while :; do :; done")
    assert "TimeoutExpired" in desktop.show("text")


def test_a_machine_without_it(program):
    assert desktop.is_missing()
    assert desktop.show("text") == "this machine has no notify-send"
