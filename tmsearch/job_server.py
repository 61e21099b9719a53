"""A process that answers another one's jobs, JSON lines in and out, and ends with it."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

Say = Callable[[Mapping[str, Any]], None]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    """A supervisor killed by -9 must not leave a child that trains on. Linux only; elsewhere closed stdin tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(answer: Callable[[dict[str, Any], Say, Callable[[], bool]], Mapping[str, Any]]) -> None:
    """Answer jobs from standard input until it closes; `answer` gets a job, a way to speak on the way, and whether it
    was told to stop, and gives the last word."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The protocol keeps the real standard output for itself: what a library prints goes to stderr.
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock, stop, jobs = threading.Lock(), threading.Event(), queue.Queue[dict[str, Any]]()

    def say(message: Mapping[str, Any]) -> None:
        with lock:
            wire.write(json.dumps(message) + "\n")
            wire.flush()

    def listen() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if message.get("stop"):
                stop.set()
            else:
                jobs.put(message)
        os._exit(0)  # the supervisor is gone or done; what was reached is on disk

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = jobs.get()
        say(answer(job, say, stop.is_set))
        stop.clear()
