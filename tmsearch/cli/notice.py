"""The notice at the end of a command that takes hours, whatever ended it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from search import study
from search.errors import UserError, first_line, without_passwords
from search.exit_codes import FAILED, INTERRUPTED
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.services.verdicts import closing_lines
from tmsearch.cli.view.chat import chat_summary, fitting_lines
from tmsearch.errors import InputError
from tmsearch.notices.channel import VARIABLE, Channel, channel

_AT_THE_TERMINAL = 60.0  # seconds that a person is taken to stay after starting a command


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


class EndNotice:
    """What is sent at the end.

    Attributes:
        study: the study's name, once it is known.
        exit_code: the command's, if it ended by itself.
        text_of: makes the notice of the study and of how it ended.
    """

    def __init__(self, storage: Storage, price: float | None) -> None:
        self.study: str | None = None
        self.exit_code: int | None = None
        self.text_of: Callable[[Summary, str], str] = lambda summary, ending: chat_summary(summary, ending, price)
        self._storage = storage

    def ended(self, exit_code: int) -> int:
        """Note how the command ended; returns the same exit code."""
        self.exit_code = exit_code
        return exit_code

    def text(self, error: BaseException | None) -> str:
        """The notice; the error's reason alone where the study cannot be read."""
        try:
            summary = study.summarize(study.open_study(self._storage, self.study or ""))
        except Exception:  # whatever is wrong with the study, that it ended is news
            return fitting_lines([f"study {self.study}: {self._ending(None, error)}"])
        return self.text_of(summary, self._ending(summary, error))

    def _ending(self, summary: Summary | None, error: BaseException | None) -> str:
        if isinstance(error, KeyboardInterrupt) or self.exit_code == INTERRUPTED:
            return "interrupted, everything is kept"
        if error is not None:
            return f"failed: {without_passwords(first_line(error))}"
        if self.exit_code == FAILED:
            return "failed: no trial has a result"
        if summary is not None and not summary.has_ended:
            return "stopped before its end, everything is kept"
        return "has ended"


def verdict_notice(summary: Summary, ending: str, price: float | None = None) -> str:
    """A confirmation's verdict for a chat, and its cost where a price is known."""
    return fitting_lines([f"study {summary.record.name}: {ending}", *closing_lines(summary, price)])


@contextmanager
def notice_at_end(
    storage: Storage,
    target: str | None,
    price: float | None = None,
    complain: Callable[[str], None] = _complain,
) -> Iterator[EndNotice]:
    """Send a notice when the block ends, however it does, where the caller or TMSEARCH_NOTIFY asks for one.

    A person's mistake that is found within a minute is told on the terminal alone. What becomes of the notice changes
    nothing. The variable is gone within the block, so that no process that is started there has it.

    Args:
        storage: of the study.
        target: a URL or `desktop`; None: the variable's.
        price: dollars an hour of each worker; None: no money is mentioned.
        complain: takes the line that says why no notice is sent.

    Raises:
        InputError: TMSEARCH_NOTIFY holds no target.
    """
    variable = os.environ.get(VARIABLE)
    try:
        to_person = channel(target)
        if to_person is not None and to_person.problem:
            complain(f"--notify desktop: {to_person.problem}; no notice will be shown")
        with _sent_at_end(to_person, EndNotice(storage, price), complain) as notice:
            yield notice
    finally:
        if variable is not None:  # the next call of the Python API finds it again
            os.environ[VARIABLE] = variable


@contextmanager
def _sent_at_end(to_person: Channel | None, notice: EndNotice, complain: Callable[[str], None]) -> Iterator[EndNotice]:
    started = time.monotonic()
    try:
        yield notice
    except BaseException as error:
        is_mistake = isinstance(error, UserError | InputError)
        if not is_mistake or time.monotonic() - started > _AT_THE_TERMINAL:
            _send(to_person, notice, error, complain)
        raise
    _send(to_person, notice, None, complain)


def _send(
    to_person: Channel | None, notice: EndNotice, error: BaseException | None, complain: Callable[[str], None]
) -> None:
    if to_person is None or notice.study is None:
        return
    try:
        problem = to_person.send(notice.text(error))
    except KeyboardInterrupt:
        problem = "interrupted"
    except Exception as failure:  # the exit code is the command's own, whatever is wrong with its notice
        problem = type(failure).__name__
    if problem:
        complain(f"no notice was sent: {problem}")
