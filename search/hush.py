"""Optuna's informational lines ("A new study created ...") kept from among a run's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna


@contextmanager
def hushed() -> Iterator[None]:
    """Warnings and errors still show; whoever uses Optuna beside us keeps the verbosity that they set."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
