"""What starts workers: local.py, slurm.py and ray.py, by one Protocol. All start the same command, without a head.

gpus.py counts this machine's GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from search.errors import UserError

ENGINES = ("local", "slurm", "ray")  # values of --on
# Variables in a worker's environment: its location for `status`, the process that it must not outlive, its cores.
LOCATION_VARIABLE = "TMSEARCH_PLACE"
PARENT_VARIABLE = "TMSEARCH_WITH_PARENT"
CORES_VARIABLE = "TMSEARCH_CPUS"
GPU_WORKERS_VARIABLE = "TMSEARCH_GPU_WORKERS"  # how many share its GPU, and that GPU's memory


class WorkerHandle(Protocol):
    """One started worker."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs or is queued."""
        ...

    def stop(self) -> None:
        """Ask it to finish its step, save, and release its claim."""
        ...

    def kill(self) -> None:
        """End it now; what it has saved stays."""
        ...

    def last_line(self) -> str:
        """The last line of its output; empty where there is none."""
        ...


class Launcher(Protocol):
    """Starts workers by slot: a number from 0 that the next worker takes when one has died."""

    def start(self, slot: int) -> WorkerHandle: ...

    def close(self) -> None:
        """Release what the launcher itself holds; workers that still run are left alone."""
        ...


def options(texts: Sequence[str], meanings: Mapping[str, str]) -> dict[str, str]:
    """KEY=VALUE of --engine, checked against the launcher's own keys (each with its meaning).

    Raises:
        UserError: for text without an equals sign and for an unknown key.
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"--engine {text}: no KEY=VALUE; this engine takes {', '.join(meanings) or 'none'}")
        if key not in meanings:
            raise UserError(f"--engine {key}: no such option here; this engine takes {', '.join(meanings) or 'none'}")
        values[key] = value
    return values


def last_line(output: str) -> str:
    """The last line that is not blank, stripped; empty where there is none."""
    lines = (line.strip() for line in reversed(output.split("\n")))
    return next(filter(None, lines), "")
