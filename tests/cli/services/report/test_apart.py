"""A function in a process of its own: what it returns, raises and how it ends."""

import os
import signal

import pytest

from search.errors import RunError, UserError
from tmsearch.cli.services.report.apart import call_apart, call_here


def answer(count, *, text):
    if count < 0:
        raise UserError(f"--count {count}: no")
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN, text * count


def test_a_process_of_its_own_answers_raises_and_may_die():
    assert call_here(answer, 2, text="a")[0] == os.getpid()
    process, ignores_interrupts, text = call_apart(answer, 2, text="a")
    assert (text, ignores_interrupts) == ("aa", True)
    assert process != os.getpid()
    with pytest.raises(UserError, match=r"^--count -1: no$"):
        call_apart(answer, -1, text="a")
    with pytest.raises(RunError, match=r"exit code -9.*was memory used up"):
        call_apart(answer, 0, text="a")
