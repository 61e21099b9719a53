"""Weights & Biases: online where its key is in the environment, else files that `wandb sync` uploads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tmsearch.files import write_atomically
from tmsearch.tracking.tracker import CLIP_COLUMNS, CLIP_TABLE, ClipRow, StepEntry, TrackedRun

_PROJECT = "tmsearch"  # unless WANDB_PROJECT names another; a study is a group in it
_MARKER = "mirrored-step"  # in an offline run's folder that was finished


class WandbTracker:
    """Resumes a run by its id. Offline each time leaves a folder of its own, which `wandb sync` joins by the id."""

    def __init__(self) -> None:
        self._run: Any = None
        self._facts: Mapping[str, Any] = {}
        self._failed = False
        self._last_step = 0

    def begin(self, run: TrackedRun) -> int:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        offline_step = _offline_step(run.id)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            id=run.id,
            name=run.name,
            group=run.project,
            config=dict(run.params),
            resume="allow",
            settings=settings,
        )
        self._facts = run.facts
        self._failed = run.failed
        self._last_step = max(offline_step, self._run.step - 1 if self._run.resumed else 0)
        return self._last_step

    def log(self, entries: Sequence[StepEntry]) -> None:
        import wandb

        for entry in entries:
            metrics: dict[str, Any] = dict(entry.scalars)
            with tempfile.TemporaryDirectory() as folder:
                if entry.worst_clips:
                    rows = [_cells(row, Path(folder) / f"{index}.mp3") for index, row in enumerate(entry.worst_clips)]
                    metrics[CLIP_TABLE] = wandb.Table(columns=list(CLIP_COLUMNS), data=rows)
                self._run.log(metrics, step=entry.step)
            self._last_step = entry.step

    def artifact(self, name: str, files: Mapping[str, Path]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type="model")
        for file_name, file in files.items():
            # As it is, without a copy of some gigabytes beside it.
            artifact.add_file(str(file), name=file_name, policy="immutable")
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        self._run.summary.update(dict(self._facts))
        folder = Path(self._run.settings.sync_dir)
        is_offline = self._run.settings.mode == "offline"
        self._run.finish(exit_code=int(self._failed))
        if is_offline:
            write_atomically(folder / _MARKER, f"{self._last_step}\n")


def _offline_step(run_id: str) -> int:
    """The last step of the run's offline folders; those that a killed process left unfinished are removed."""
    last_step = 0
    runs = Path(os.environ.get("WANDB_DIR", ".")) / "wandb"
    # Folders of one second get a number at their end.
    for folder in [*runs.glob(f"offline-run-*-{run_id}"), *runs.glob(f"offline-run-*-{run_id}-*")]:
        try:
            last_step = max(last_step, int((folder / _MARKER).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return last_step


def _cells(row: ClipRow, file: Path) -> list[Any]:
    """A table's row; its sound passes through `file`."""
    import wandb

    cells: list[Any] = [row.name, row.errors, row.words, row.reference, row.hypothesis]
    if row.mp3 is None:
        return [*cells, None]
    file.write_bytes(row.mp3)
    return [*cells, wandb.Audio(str(file))]
