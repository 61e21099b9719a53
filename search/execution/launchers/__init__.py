"""Engines that start workers: on this machine, on Slurm, on Ray. All start the same command, which needs no head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from search.errors import UserError

ENGINES = ("local", "slurm", "ray")
# What a started worker finds in its environment: where it runs, in words for `status`; whom it may not outlive.
LOCATION_VARIABLE, PARENT_VARIABLE, CORES_VARIABLE = "TMSEARCH_PLACE", "TMSEARCH_WITH_PARENT", "TMSEARCH_CPUS"


class WorkerHandle(Protocol):
    """One started worker."""

    def poll(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs or waits to."""
        ...

    def stop(self) -> None:
        """Ask it to finish its step, save, and give its work back."""
        ...

    def kill(self) -> None:
        """End it now; what it saved stays."""
        ...

    def last_line(self) -> str:
        """The last line that it said; empty where there is none."""
        ...


class Launcher(Protocol):
    """Starts workers, each in a seat: a number from 0 on that another worker takes when the first one died."""

    def start(self, seat: int) -> WorkerHandle: ...

    def close(self) -> None:
        """Let go of what the engine itself needs; workers that still run are none of it."""
        ...


def options(given: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """KEY=VALUE of --engine, checked against the engine's own keys (each with what it means).

    Raises:
        UserError: for text without an equals sign and for a key that the engine does not know.
    """
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"--engine {text}: no KEY=VALUE; this engine takes {', '.join(known) or 'none'}")
        if key not in known:
            raise UserError(f"--engine {key}: no such option here; this engine takes {', '.join(known) or 'none'}")
        found[key] = value
    return found
