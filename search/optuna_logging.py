"""Keeps Optuna's informational lines ("A new study created ...") out of a run's own output."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

_lock = threading.Lock()
_outer_verbosity: list[int] = []  # the verbosity to restore, once for every thread that is inside


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's information; warnings and errors still show. The verbosity set before is restored at the end."""
    with _lock:
        _outer_verbosity.append(_outer_verbosity[0] if _outer_verbosity else optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(max(_outer_verbosity[0], optuna.logging.WARNING))
    try:
        yield
    finally:
        with _lock:
            verbosity = _outer_verbosity.pop()
            if not _outer_verbosity:
                optuna.logging.set_verbosity(verbosity)
