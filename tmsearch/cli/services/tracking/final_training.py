"""The final training as a tracker's run: its curves while it trains, its rates and the model at its end."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tmsearch.config import knob_values
from tmsearch.export.final_run import OPTIONS
from tmsearch.export.finalize import METRICS
from tmsearch.export.push_to_hub import FILES, KEPT_HERE
from tmsearch.files import write_atomically
from tmsearch.recipe import Recipe
from tmsearch.tracking import choice
from tmsearch.tracking.tracker import TrackedRun

EVERY_SECONDS = 60.0  # between looks at the curves
_ID_FILE = "run-id"


class FinalTraining:
    """Gives the one run of a model's folder, once its training has begun there.

    Args:
        recipe: that is trained.
        folder: of the model.
        names: the trackers, kept there for the next command on it.
    """

    def __init__(self, recipe: Recipe, folder: Path, names: tuple[str, ...]) -> None:
        self._recipe = recipe
        self._folder = folder
        self._names = names
        self.project = str(recipe.evidence.get("study") or folder.name)

    def __call__(self) -> list[TrackedRun]:
        events = self._folder / "runs"
        if not (self._folder / OPTIONS).is_file() or not events.is_dir():
            return []
        choice.remember(self._names, self._folder)
        metrics = _read_metrics(self._folder / METRICS)
        return [
            TrackedRun(
                id=self._id(),
                name=f"final-{self._folder.name}",
                project=self.project,
                params={name: value for name, value in knob_values(self._recipe.train).items() if value is not None},
                facts={"state": "finished" if metrics else "running", **_flat(metrics)},
                ended=bool(metrics),
                failed=False,
                created=(self._folder / OPTIONS).stat().st_mtime,
                data=dataclasses.asdict(self._recipe.data),
                scores=str(self._folder),
                events=str(events),
                is_final=True,
                artifact=_model_files(self._folder) if metrics else {},
            )
        ]

    def _id(self) -> str:
        """Random, and kept: a folder that is deleted and trained anew is another run."""
        file = self._folder / choice.FOLDER / _ID_FILE
        if not file.is_file():
            write_atomically(file, f"{uuid.uuid4().hex[:12]}-final\n")
        return file.read_text(encoding="utf-8").strip()


def _read_metrics(file: Path) -> dict[str, Any]:
    """The metrics of a training that has ended; empty before."""
    if not file.is_file():
        return {}
    metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return metrics


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested objects under names such as test.wer."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            numbers |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + name] = value
    return numbers


def _model_files(folder: Path) -> dict[str, str]:
    """What an upload to the hub would take along: files by name."""
    files = sorted({file for pattern in FILES for file in folder.glob(pattern)})
    return {file.name: str(file) for file in files if file.name not in KEPT_HERE}
