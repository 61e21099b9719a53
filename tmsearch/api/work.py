"""A search or a confirmation at work for a Python caller: its display, its callbacks, and how it ended."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from search import study as studies
from search.execution.launchers import ENGINES
from search.execution.lease import Interrupts
from search.exit_codes import FAILED, INTERRUPTED
from search.storage.database import Storage
from search.study import Summary
from tmsearch.api.errors import InputError, RunFailedError, StudyInterrupted
from tmsearch.api.follow import CallbackDisplay, Callbacks, SilentDisplay
from tmsearch.cli import arguments
from tmsearch.cli.services.run_study import StudyView, WorkerPlan
from tmsearch.cli.services.runs.search import SearchOptions
from tmsearch.cli.view.closing import result_lines
from tmsearch.cli.view.progress import Display, ProgressPrinter

if TYPE_CHECKING:
    from tmsearch.api.study import Study

Progress = bool | Literal["auto", "notebook", "lines"]
Value = TypeVar("Value")


def work(
    study: Study, storage: Storage, run: Callable[[StudyView], int], callbacks: Callbacks, progress: Progress
) -> None:
    """Run a study and raise what its end asks for.

    Args:
        study: what is run; it need not exist yet.
        storage: its storage.
        run: runs it with a view; returns an exit code.
        callbacks: what to call on the way.
        progress: what to show of it.

    Raises:
        RunFailedError: no configuration has a result.
        StudyInterrupted: a signal ended it.
    """
    interrupts = Interrupts()
    new_display = _displays(storage, progress)
    followed: list[CallbackDisplay] = []

    def display(summary: Summary, workers: int, deadline: float, price: float | None) -> Display:
        inner = new_display(summary, workers, deadline, price)
        ledger = studies.open_study(storage, summary.record.name)
        followed.append(CallbackDisplay(inner, ledger, callbacks, interrupts))
        return followed[-1]

    view = StudyView(
        say=_say_nothing if progress is False else print,
        new_display=display,
        last_lines=result_lines,
        names_commands=False,
        interrupts=interrupts,
    )
    exit_code = run(view)
    for follower in followed:
        if follower.error is not None:
            raise follower.error
    if callbacks.on_end is not None:
        callbacks.on_end(study.status())
    if exit_code == INTERRUPTED:
        raise StudyInterrupted(f"{study.name}: interrupted, everything is kept; the same call continues", study)
    if exit_code == FAILED:
        summary = studies.summarize(studies.open_study(storage, study.name))
        raise RunFailedError(result_lines(summary)[0])


def _displays(storage: Storage, progress: Progress) -> Callable[[Summary, int, float, float | None], Display]:
    """What shows a study at work."""
    from tmsearch.api.view import notebook

    if progress is False:
        return SilentDisplay
    if progress == "notebook" or (progress in ("auto", True) and notebook.is_running()):
        return notebook.display_of(storage)
    if progress not in ("auto", True, "lines"):
        raise InputError(f'progress: {progress!r} is none; give "auto", "notebook", "lines" or False')
    return ProgressPrinter


def _say_nothing(line: str) -> None:
    """Without progress nothing is said."""


def search_options(
    trials: int | None,
    timeout: float | str | None,
    seed: int | None,
    workers: WorkerPlan,
    track: Sequence[str] | None,
) -> SearchOptions:
    """What a caller asks of a search, checked as the command line's arguments are; raises InputError."""
    return SearchOptions(
        checked("trials", arguments.count, trials),
        checked("timeout", arguments.duration, timeout),
        checked("seed", arguments.number, seed),
        workers,
        track,
    )


def worker_plan(workers: int | None, on: str, engine: Mapping[str, Any] | None) -> WorkerPlan:
    """The workers that a caller asks for; raises InputError."""
    if on not in ENGINES:
        raise InputError(f"on: {on!r} is none; give {', '.join(ENGINES)}")
    count = checked("workers", arguments.count, workers)
    return WorkerPlan(count, on, tuple(f"{key}={value}" for key, value in (engine or {}).items()))


def checked(name: str, read: Callable[[str], Value], value: object) -> Value | None:
    """A value as the command line's argument of the same kind is read; None stays; raises InputError."""
    if value is None:
        return None
    try:
        return read(str(value))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{name}: {error}") from None
