"""A search or a confirmation at work for a Python caller: its display, its callbacks, and how it ended."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from search import study as studies
from search.execution.launchers import ENGINES
from search.execution.lease import Interrupts
from search.exit_codes import FAILED, INTERRUPTED
from search.storage.database import Storage
from search.study import Summary
from tmsearch.api.errors import InputError, RunFailedError, StudyInterrupted, as_arguments
from tmsearch.api.follow import CallbackDisplay, Callbacks, SilentDisplay
from tmsearch.cli import arguments
from tmsearch.cli.notice import notice_at_end
from tmsearch.cli.services.confirmation import ConfirmOptions
from tmsearch.cli.services.run_study import StudyView
from tmsearch.cli.services.runs.confirm import RaceOptions
from tmsearch.cli.services.runs.search import SearchOptions
from tmsearch.cli.services.runs.workers import WorkerPlan
from tmsearch.cli.view.closing import result_lines
from tmsearch.cli.view.progress import Display, ProgressPrinter

if TYPE_CHECKING:
    from tmsearch.api.study import Study

Progress = bool | Literal["auto", "notebook", "lines"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class FollowOptions:
    """How a caller follows the work.

    Attributes:
        callbacks: what to call on the way.
        progress: what to show of it.
        price: dollars an hour of each worker; None: no money is mentioned.
        notify: where a notice goes at the end; None: to what TMSEARCH_NOTIFY says.
        notice_text: makes the notice of the study and of how it ended; None: as of a search.
    """

    callbacks: Callbacks
    progress: Progress
    price: float | None = None
    notify: str | None = None
    notice_text: Callable[[Summary, str], str] | None = None


def follow_options(
    callbacks: Callbacks, progress: Progress, price: float | str | None = None, notify: str | None = None
) -> FollowOptions:
    """How a caller wants to follow the work, checked as the command line's arguments are; raises InputError."""
    return FollowOptions(
        callbacks,
        progress,
        checked("price", arguments.dollars, price),
        checked("notify", arguments.notice_target, notify),
    )


def work(study: Study, storage: Storage, run: Callable[[StudyView], int], follow: FollowOptions) -> None:
    """Run a study and raise what its end asks for.

    Args:
        study: what is run; it need not exist yet.
        storage: its storage.
        run: runs it with a view; returns an exit code.
        follow: how the caller follows it.

    Raises:
        RunFailedError: no configuration has a result.
        StudyInterrupted: a signal ended it.
    """
    interrupts = Interrupts()
    new_display = _displays(storage, follow.progress)
    followed: list[CallbackDisplay] = []

    def display(summary: Summary, workers: int, deadline: float, price: float | None) -> Display:
        inner = new_display(summary, workers, deadline, price)
        ledger = studies.open_study(storage, summary.record.name)
        followed.append(CallbackDisplay(inner, ledger, follow.callbacks, interrupts))
        return followed[-1]

    view = StudyView(
        say=_say_nothing if follow.progress is False else print,
        new_display=display,
        last_lines=functools.partial(result_lines, price=follow.price),
        names_commands=False,
        interrupts=interrupts,
    )
    with notice_at_end(storage, follow.notify, follow.price, _complain) as notice:
        notice.study = study.name
        notice.text_of = follow.notice_text or notice.text_of
        exit_code = run(view)
        for follower in followed:
            if follower.error is not None:
                raise follower.error
        notice.ended(exit_code)
    if follow.callbacks.on_end is not None:
        follow.callbacks.on_end(study.status(price=follow.price))
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


def _complain(line: str) -> None:
    """Why no notice is sent is said whatever the progress: nobody else would know."""
    print(as_arguments(line), file=sys.stderr)


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


def race_options(
    top: int | None,
    seeds: int | None,
    folds: int | None,
    budget: float | str | None,
    test: bool,
    workers: WorkerPlan,
    track: Sequence[str] | None,
) -> RaceOptions:
    """What a caller asks of a confirmation, checked as the command line's arguments are; raises InputError."""
    plan = ConfirmOptions(
        checked("top", arguments.count, top),
        checked("seeds", arguments.count, seeds),
        checked("folds", arguments.count, folds),
    )
    return RaceOptions(plan, checked("budget", arguments.duration, budget), workers, track, test)


def worker_plan(
    workers: int | None, on: str, engine: Mapping[str, Any] | None, price: float | None = None
) -> WorkerPlan:
    """The workers that a caller asks for, at so many dollars an hour of each; raises InputError."""
    if on not in ENGINES:
        raise InputError(f"on: {on!r} is none; give {', '.join(ENGINES)}")
    count = checked("workers", arguments.count, workers)
    return WorkerPlan(count, on, tuple(f"{key}={value}" for key, value in (engine or {}).items()), price)


def checked(name: str, read: Callable[[str], Value], value: object) -> Value | None:
    """A value as the command line's argument of the same kind is read; None stays; raises InputError."""
    if value is None:
        return None
    try:
        return read(str(value))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{name}: {error}") from None
