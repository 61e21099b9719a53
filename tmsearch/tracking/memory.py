"""What a tracker has already, so that nothing is sent to it twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tmsearch.files import write_atomically


class Memory:
    """What a tracker has, by run, in a file that is replaced as a whole: written after the tracker has it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def signature(self, run_id: str) -> list[Any] | None:
        """The signature of the run when it was last mirrored."""
        signature: list[Any] | None = self._runs().get(run_id, {}).get("signature")
        return signature

    def step(self, run_id: str) -> int:
        """The last step that was mirrored; 0 for none."""
        return int(self._runs().get(run_id, {}).get("step", 0))

    def keep(self, run_id: str, step: int, signature: Sequence[Any] | None) -> None:
        """Remember a run that was mirrored up to `step`; `signature` None: there is more to come."""
        runs = {**self._runs(), run_id: {"step": step, "signature": signature}}
        write_atomically(self._file, json.dumps(runs, indent=0))

    def _runs(self) -> dict[str, Any]:
        try:
            runs: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return runs


def memory_file(folder: Path, tracker: str) -> Path:
    """Where it is remembered, within the folder of a study's trackers, what a tracker has."""
    return folder / f"{tracker}.json"
