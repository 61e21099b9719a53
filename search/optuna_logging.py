"""Optuna's informational lines ("A new study created ...") kept from among a run's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

_lock = threading.Lock()
_inside: list[int] = []  # the verbosity that was found, once for every thread that is inside


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Warnings and errors still show; whoever uses Optuna beside us keeps the verbosity that they set."""
    with _lock:
        _inside.append(_inside[0] if _inside else optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(max(_inside[0], optuna.logging.WARNING))
    try:
        yield
    finally:
        with _lock:
            found = _inside.pop()
            if not _inside:
                optuna.logging.set_verbosity(found)
