"""The process that speaks to one tracker: `python -m tmsearch.tracking NAME FOLDER`, jobs on standard input."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tmsearch import job_server
from tmsearch.tracking.memory import Memory, memory_file
from tmsearch.tracking.mirror import Mirror
from tmsearch.tracking.tracker import TrackedRun, Tracker

_CLASSES = {
    "trackio": ("tmsearch.tracking.trackio_tracker", "TrackioTracker"),
    "wandb": ("tmsearch.tracking.wandb_tracker", "WandbTracker"),
    "mlflow": ("tmsearch.tracking.mlflow_tracker", "MlflowTracker"),
}


def make_tracker(name: str) -> Tracker:
    """A tracker by its name; its client is imported here, and reads its own variables."""
    module, class_name = _CLASSES[name]
    tracker: Tracker = getattr(importlib.import_module(module), class_name)()
    return tracker


class Answerer:
    """Answers jobs for one tracker, whose client is started by the first.

    Args:
        name: of the tracker.
        folder: of a study's trackers, or of a model's.
        make: starts the client.
    """

    def __init__(self, name: str, folder: Path, make: Callable[[str], Tracker] = make_tracker) -> None:
        self._name = name
        self._make = make
        self._memory = Memory(memory_file(folder, name))
        self._mirror: Mirror | None = None

    def answer(self, job: dict[str, Any], write: Callable[[bytes], None]) -> dict[str, Any]:
        """What came of one run's job, `mirrored` or `failure` with its reason; signs of life are written before it."""
        try:
            if self._mirror is None:
                self._mirror = Mirror(self._make(self._name), self._memory)
            run = TrackedRun(**{**job, "rungs": [(step, rates) for step, rates in job["rungs"]]})
            complete = self._mirror.bring_up_to_date(run, lambda: write(b'{"event": "alive"}\n'))
            return {"event": "mirrored", "complete": complete}
        except Exception as error:  # a tracker never stops a search
            traceback.print_exc()
            self._mirror = None  # its client may be half done: the next job starts it anew
            lines = str(error).strip().splitlines()
            return {"event": "failure", "reason": f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")}


def _jobs(stream: BinaryIO, write: job_server.Write, stop: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for line in stream:
        yield json.loads(line)


def main() -> None:
    """Answer jobs from standard input until it closes.

    At a low priority, not the lowest: beside a training that fills all cores a client at 19 was not started within two
    minutes (2026-11-29).
    """
    job_server.lower_priority(5)
    name, folder = sys.argv[1:]
    answerer = Answerer(name, Path(folder))
    job_server.serve(_jobs, lambda job, write, stop: json.dumps(answerer.answer(job, write)).encode() + b"\n")


if __name__ == "__main__":
    main()
