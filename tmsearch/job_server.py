"""A process of ours: the command that starts it, how it answers another one's jobs, a line each, and ends with it."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

Request = TypeVar("Request")
Write = Callable[[bytes], None]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def command(module: str, *words: str) -> list[str]:
    """A command that runs a module of ours with `words` in a process of its own.

    `python -m` imports from the working folder first, where a person's own search.py or queue.py may lie; `-P` leaves
    it out. Where tmsearch itself lies there, as in a checkout that is not installed, it is needed.
    """
    in_checkout = Path(__file__).resolve().parents[1] == Path.cwd()
    options = () if in_checkout else ("-P",)
    return [sys.executable, *options, "-m", module, *words]


def die_with_parent() -> None:
    """A supervisor killed by -9 must not leave a child that trains on. Linux only; elsewhere closed stdin tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def lower_priority(by: int) -> None:
    """Let other processes go first; on Windows nothing is changed, which has no such numbers.

    Args:
        by: from 1 to 19, the lowest.
    """
    if sys.platform != "win32":
        os.nice(by)


def serve(
    requests: Callable[[BinaryIO, Write, Callable[[], None]], Iterator[Request]],
    answer: Callable[[Request, Write, Callable[[], bool]], bytes],
    finish: Callable[[], None] | None = None,
) -> None:
    """Answer jobs from standard input until `requests` ends; does not return.

    Args:
        requests: reads jobs from a stream; gets a function that writes a line, and one to call where the current job
            is to stop.
        answer: gets a job, a function that writes a line on the way, and one that says whether to stop; returns the
            last line.
        finish: called at the end, in another thread than the jobs; it must not take long.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The protocol keeps the real standard output for itself: what a library prints goes to stderr.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lock = threading.Lock()
    stop = threading.Event()
    jobs = queue.Queue[Request]()

    def write(line: bytes) -> None:
        with lock:
            wire.write(line)
            wire.flush()

    def listen() -> None:
        for request in requests(sys.stdin.buffer, write, stop.set):
            jobs.put(request)
        if finish is not None:
            finish()
        os._exit(0)  # the supervisor is gone or done; what was reached is on disk

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = jobs.get()
        write(answer(job, write, stop.is_set))
        stop.clear()
