"""A study at work in a notebook: its page and its curves, drawn over themselves. Needs no widget and no extension."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from search import study
from search.errors import StorageUnavailableError
from search.execution.messages import ProgressEvent
from search.records import Configuration
from search.storage.database import Storage
from search.study import Summary
from tmsearch.api.follow import SilentDisplay
from tmsearch.api.status import status_of
from tmsearch.api.view import curves

REDRAW_SECONDS = 1.0  # between two drawings: each is a message to a browser, and stays in the notebook's file only once


def is_running() -> bool:
    """Whether this is a notebook's kernel: whoever uses one has imported IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def display_of(storage: Storage) -> Callable[[Summary, int, float, float | None], NotebookDisplay]:
    """Makes the display of a study in the storage, as `StudyView.new_display` is called."""

    def new_display(summary: Summary, workers: int, deadline: float, price: float | None) -> NotebookDisplay:
        return NotebookDisplay(storage, summary, price)

    return new_display


class NotebookDisplay(SilentDisplay):
    """The page that `status` prints, and the curves, in the output of the cell that runs.

    Args:
        storage: the study's, which is read again at each drawing.
        summary: the study at the start.
        price: dollars an hour of each worker; None: no money is mentioned.
    """

    def __init__(self, storage: Storage, summary: Summary, price: float | None = None) -> None:
        self._storage = storage
        self._price = price
        self._ledger = study.open_study(storage, summary.record.name)
        self._summary = summary
        self._progress: dict[int, ProgressEvent] = {}
        self._page: Any = None
        self._curves: Any = None
        self._drawn = 0.0  # time.monotonic()
        self._is_given_up = False

    def __enter__(self) -> NotebookDisplay:
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.clear()
        self._draw()

    def say(self, line: str, style: str = "") -> None:
        print(line)

    def notice(self, text: str) -> None:
        print(text)

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        self._draw_soon()

    def progress(self, number: int, event: ProgressEvent) -> None:
        self._progress[number] = event
        self._draw_soon()

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._progress.pop(number, None)
        self._draw()

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._progress.pop(number, None)
        self._draw()

    def at_work(self, running: Mapping[int, str]) -> None:
        self._draw_soon()

    def _draw_soon(self) -> None:
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        """Draw page and curves over themselves; whatever is wrong with the drawing, the search goes on without it."""
        if self._is_given_up:
            return
        self._drawn = time.monotonic()
        try:
            self._draw_both()
        except Exception as error:  # of a front end that is gone, of a library: no reason to end hours of training
            self._is_given_up = True
            print(f"no live page any more: {type(error).__name__}: {error}; status() and curves() show the study")

    def _draw_both(self) -> None:
        """Of the study as it is now; a database that is away leaves it as it was."""
        with contextlib.suppress(StorageUnavailableError):
            self._summary = study.summarize(self._ledger)
        history = tuple(self._with_progress(trial) for trial in self._summary.history)
        summary = dataclasses.replace(self._summary, history=history)
        status = status_of(summary, self._storage.display_name, self._price)
        page = {"text/html": status._repr_html_(), "text/plain": str(status)}
        self._page = _draw_over(self._page, page)
        if any(trial.rungs for trial in history):
            self._curves = _draw_over(self._curves, curves.bundle(summary))

    def _with_progress(self, trial: Configuration) -> Configuration:
        """The configuration at the step that its training process told last: the ledger is told only now and then."""
        event = self._progress.get(trial.number)
        if event is None or trial.state != "running":
            return trial
        return dataclasses.replace(trial, progress=event.to_json())


def _draw_over(handle: Any, bundle: dict[str, Any]) -> Any:
    """Show a bundle of forms, in place of what the handle showed; returns the handle."""
    from IPython.display import display

    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle
