"""Trackio: a SQLite file on this machine, or a Space or server that its own variables name."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tmsearch.formatting import markdown
from tmsearch.tracking.tracker import CLIP_COLUMNS, CLIP_TABLE, ClipRow, StepEntry, TrackedRun


class TrackioTracker:
    """A project a study; a step's scalars and its table are one row, which its database has or has not."""

    def __init__(self) -> None:
        self._run: Any = None
        self._last_step = 0
        self._block = ExitStack()
        self._warnings: list[warnings.WarningMessage] = []

    def begin(self, run: TrackedRun) -> int:
        import trackio

        # Its client turns every failure into a warning.
        self._block.close()
        self._warnings = self._block.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        config = {**run.params, **run.facts}
        self._run = trackio.init(
            run.project,
            name=run.name,
            config=config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._last_step = max(0, self._run._next_step - 1)  # of what its storage has, here or at the server
        return self._last_step

    def log(self, entries: Sequence[StepEntry]) -> None:
        import trackio

        for entry in entries:
            metrics: dict[str, Any] = dict(entry.scalars)
            with tempfile.TemporaryDirectory() as folder:
                if entry.worst_clips:
                    rows = [_cells(row, Path(folder) / f"{index}.mp3") for index, row in enumerate(entry.worst_clips)]
                    metrics[CLIP_TABLE] = trackio.Table(columns=list(CLIP_COLUMNS), data=rows)
                self._run.log(metrics, step=entry.step)
            self._last_step = entry.step

    def artifact(self, name: str, files: Mapping[str, Path]) -> None:
        import trackio

        artifact = trackio.Artifact(name, type="model")
        for file_name, file in files.items():
            artifact.add_file(file, name=file_name)
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        # A row without metrics, which nobody sees, takes the configuration along: a state that changed between results.
        self._run.log({}, step=self._last_step)
        self._run.finish()
        self._block.close()
        own = [warning for warning in self._warnings if "trackio" in Path(warning.filename).parts]
        failures = [str(warning.message) for warning in own]
        if failures:
            raise RuntimeError(failures[0])


def _cells(row: ClipRow, file: Path) -> list[Any]:
    """A row whose texts are shown as Markdown; its sound passes through `file`."""
    import trackio

    cells: list[Any] = [markdown(row.name), row.errors, row.words, markdown(row.reference), markdown(row.hypothesis)]
    if row.mp3 is None:
        return [*cells, None]
    file.write_bytes(row.mp3)
    return [*cells, trackio.Audio(file, format="mp3")]
