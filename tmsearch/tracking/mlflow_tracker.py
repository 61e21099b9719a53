"""MLflow: a SQLite file and a folder of artifacts on this machine, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment

from tmsearch.tracking.tracker import CLIP_COLUMNS, CLIP_TABLE, ClipRow, StepEntry, TrackedRun

_RUN_TAG = "tmsearch.run"
_STEP_TAG = "tmsearch.step"  # the last step that was logged with all that belongs to it
_METRICS_AT_ONCE = 1000  # the limit of a call
_PARAMS_AT_ONCE = 100  # the same
_SQLITE = "sqlite:///"
_PAGE = """<!doctype html><meta charset="utf-8">
<table><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td>{{ row.errors }}</td><td>{{ row.words }}</td>
<td>{{ row.reference }}</td><td>{{ row.hypothesis }}</td>
<td>{% if row.mp3 %}<audio controls src="data:audio/mpeg;base64,{{ base64(row.mp3) }}"></audio>{% endif %}</td></tr>
{% endfor %}</table>
"""


class MlflowTracker:
    """An experiment a study; metrics have the times of the training, so that the same ones are the same rows."""

    def __init__(self) -> None:
        from mlflow import MlflowClient

        uri = os.environ["MLFLOW_TRACKING_URI"]
        # On this machine the artifacts lie beside the database; a server has a place of its own.
        self._artifacts: str | None = None
        if uri.startswith(_SQLITE):
            folder = Path(uri.removeprefix(_SQLITE)).parent
            folder.mkdir(parents=True, exist_ok=True)
            self._artifacts = (folder / "artifacts").resolve().as_uri()
        self._client = MlflowClient(uri)
        self._run: TrackedRun | None = None
        self._run_id = ""

    def begin(self, run: TrackedRun) -> int:
        from mlflow.entities import Param

        self._run = run
        experiment = self._experiment(run.project)
        runs = self._client.search_runs([experiment], f"tags.`{_RUN_TAG}` = '{run.id}'", max_results=1)
        if not runs:
            runs = [self._client.create_run(experiment, run_name=run.name, tags={_RUN_TAG: run.id})]
        self._run_id = runs[0].info.run_id
        params = [Param(name, str(value)) for name, value in run.params.items() if value is not None]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMS_AT_ONCE])
        return int(runs[0].data.tags.get(_STEP_TAG, 0))

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=self._artifacts))
            except MlflowException:  # made by another process meanwhile
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    def log(self, entries: Sequence[StepEntry]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for entry in entries:
            milliseconds = round(1000 * entry.time)
            metrics += [Metric(name, value, milliseconds, entry.step) for name, value in entry.scalars.items()]
            if entry.worst_clips:
                page = clip_page(entry.worst_clips)
                self._client.log_text(self._run_id, page, f"{CLIP_TABLE}/step-{entry.step:06d}.html")
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
        if entries:
            self._client.set_tag(self._run_id, _STEP_TAG, str(entries[-1].step))

    def artifact(self, name: str, files: Mapping[str, Path]) -> None:
        for file_name, file in files.items():
            folder = PurePosixPath("model", file_name).parent
            self._client.log_artifact(self._run_id, str(file), str(folder))

    def finish(self) -> None:
        from mlflow.entities import RunTag

        assert self._run is not None
        facts = [RunTag(name, str(value)) for name, value in self._run.facts.items() if value is not None]
        self._client.log_batch(self._run_id, tags=facts)
        if self._run.ended:
            self._client.set_terminated(self._run_id, "FAILED" if self._run.failed else "FINISHED")
        else:
            self._client.update_run(self._run_id, status="RUNNING")


def clip_page(rows: Sequence[ClipRow]) -> str:
    """A table of clips as one page of HTML, its sounds within it, every text escaped."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    template: Any = Environment(autoescape=True).from_string(_PAGE)
    return str(template.render(columns=CLIP_COLUMNS, rows=rows, base64=encoded))
