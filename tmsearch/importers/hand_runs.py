"""Logs of hand-run trainings -> runs: results.yaml, trainer_state.json, TensorBoard events, CSV."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tmsearch.errors import InputError
from tmsearch.importers.record import Ending, HandRun, Measure, by_step, digest

# A line of a log that is a setting: its words -> the name here, and its type.
Settings = Mapping[str, tuple[str, Callable[[str], Any]]]

# pauljunsukhan/whisper_finetuning, as in its own logs; `normalize` did nothing there: the processor ignores the word.
_KNOBS: Settings = {
    "Base Model": ("model", str),
    "Batch Size": ("batch_size", int),
    "Learning Rate": ("learning_rate", float),
    "LR Scheduler": ("schedule", str),
    "Max Steps": ("max_steps", int),
    "Warmup Steps": ("warmup_steps", int),
    "Max Gradient Norm": ("max_grad_norm", float),
    "Weight Decay": ("weight_decay", float),
    "Label Smoothing": ("label_smoothing", float),
    "Dropout": ("dropout", float),
    "Normalization": ("normalize_audio", lambda text: False),
}
_DATA: Settings = {
    "Source": ("dataset", str),
    "Training Examples": ("train_clips", int),
    "Testing Examples": ("validation_clips", int),
}
_WER_COLUMNS: Mapping[str, Measure | None] = {
    "wer_raw": "raw",
    "wer_normalised": "normalised",
    "wer": None,
    "eval_wer": None,
}


def read(path: Path, knobs: Collection[str]) -> list[HandRun]:
    """Reads every training of a log.

    Args:
        path: The log, or a folder that holds one.
        knobs: Names of the knobs to take from it; other settings are ignored.

    Raises:
        InputError: The log is of none of the known kinds, or holds no WER.
    """
    runs = []
    for run in _read_file(_find_log(path)):
        params = {name: value for name, value in run.params.items() if name in knobs}
        runs.append(replace(run, params=params))
    return runs


def _read_file(file: Path) -> list[HandRun]:
    if file.name.startswith("events.out.tfevents"):
        from tmsearch.importers import tensorboard_events

        return [tensorboard_events.read(file)]
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise InputError(f"{file}: not a log; give a results.yaml, a trainer_state.json, TensorBoard events or a .csv")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable as text ({error.__class__.__name__}); give the log itself") from None
    runs = reader(file, text)
    for run in runs:
        if not run.curve and run.ending == "finished":
            raise InputError(f"{file}: has no WER at any step; there is nothing to import")
    return runs


def _find_log(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a log")
    if path.is_file():
        return path
    for pattern in ("results.yaml", "trainer_state.json", "events.out.tfevents*", "*.csv"):
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files:
            raise InputError(f"{path}: {len(files)} files {pattern}; name the one that is meant")
    raise InputError(f"{path}: no results.yaml, trainer_state.json, TensorBoard events or .csv in it; name the log")


@dataclass
class _Timeline:
    """What the events of a results.yaml add up to."""

    params: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    wers: dict[int, float] = field(default_factory=dict)
    step: int = 0
    last_message: str = ""
    is_complete: bool = False
    has_diverged: bool = False

    def add(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "message":
            self._add_message(str(event.get("content", "")).strip())
        elif kind == "metric" and event.get("name") == "train_eval_wer":
            self.wers[self.step] = float(event["value"])
        elif kind == "metric" and event.get("name") == "train_loss":
            self.has_diverged = self.has_diverged or not _is_finite(event["value"])

    def _add_message(self, message: str) -> None:
        self.last_message = message
        self.params |= _setting(message, _KNOBS)
        self.data |= _setting(message, _DATA)
        step = re.match(r"Training Metrics - Step (\d+)", message)
        if step:
            self.step = int(step[1])
        if message.startswith("Experiment complete"):
            self.is_complete = True

    def ending(self) -> tuple[Ending, str]:
        """How the training ended, and that in words."""
        last_step = max(self.wers, default=0)
        max_steps = self.params.get("max_steps")
        if self.has_diverged:
            return "diverged", f"the loss was not finite by step {self.step}"
        if not self.is_complete:
            progress = f"step {self.step} of {max_steps or '?'}"
            return "crashed", f"ended at {progress} before it was complete; last message: {self.last_message[:80]}"
        if max_steps and last_step < max_steps:
            return "finished", f"trained by hand, {last_step} steps of {max_steps}, stopped early"
        return "finished", f"trained by hand, {last_step} steps"


def _read_results_yaml(file: Path, text: str) -> list[HandRun]:
    try:
        log = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        events = log["timeline"]
        name = str(log["metadata"]["name"])
        start_time = str(log["metadata"].get("start_time"))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: not a training's results.yaml: metadata and timeline are missing") from None
    timeline = _Timeline()
    for event in events:
        timeline.add(event)
    ending, reason = timeline.ending()
    run = HandRun(
        name=file.parent.name or name,
        digest=digest("results.yaml", name, start_time, text),
        params=timeline.params,
        curve=by_step(timeline.wers),
        ending=ending,
        reason=reason,
        last_step=max(timeline.wers, default=0),
        measure="raw",
        data=timeline.data,
    )
    return [run]


def _setting(message: str, settings: Settings) -> dict[str, Any]:
    """The setting in a line such as `Batch Size: 16`; empty for any other line."""
    key, colon, value = message.partition(":")
    if not colon or key.strip() not in settings or "\n" in message.strip():
        return {}
    name, convert = settings[key.strip()]
    try:
        return {name: convert(value.strip())}
    except ValueError:
        return {}


def _read_trainer_state(file: Path, text: str) -> list[HandRun]:
    try:
        state = json.loads(text)
        history = state["log_history"]
        step = int(state["global_step"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: not a trainer_state.json: log_history and global_step are missing") from None
    wers = {
        int(entry["step"]): float(entry["eval_wer"]) for entry in history if "eval_wer" in entry and "step" in entry
    }
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    max_steps = int(state.get("max_steps") or 0)
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    should_stop = bool((control.get("args") or {}).get("should_training_stop"))
    ending: Ending
    if not all(math.isfinite(loss) for loss in losses):
        ending = "diverged"
        reason = f"the loss was not finite by step {step}"
    elif should_stop or (max_steps and step >= max_steps):
        ending = "finished"
        reason = f"trained by hand, {step} steps"
        if step < max_steps:
            reason += f" of {max_steps}"
    else:
        ending = "crashed"
        reason = f"stopped at step {step} of {max_steps or '?'} for no recorded reason"
    params = {"max_steps": max_steps} if max_steps > 0 else {}
    return [HandRun(file.parent.name, digest("trainer_state", text), params, by_step(wers), ending, reason, step)]


def _read_csv(file: Path, text: str) -> list[HandRun]:
    """Columns: step; wer, eval_wer, wer_raw or wer_normalised; `run`, where there are several; knobs by their names."""
    rows = list(csv.DictReader(text.splitlines()))
    columns = [column.strip() for column in rows[0]] if rows else []
    wer_column = next((column for column in _WER_COLUMNS if column in columns), None)
    if "step" not in columns or wer_column is None:
        raise InputError(f"{file}: columns step and wer (or wer_raw, wer_normalised) are missing; name them in line 1")
    rows_by_run: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        stripped = {str(column).strip(): (cell or "").strip() for column, cell in row.items()}
        rows_by_run.setdefault(stripped.get("run", ""), []).append(stripped)
    return [_csv_run(file, name, run_rows, wer_column) for name, run_rows in rows_by_run.items()]


def _csv_run(file: Path, name: str, rows: list[dict[str, str]], wer_column: str) -> HandRun:
    try:
        wers = {int(row["step"]): float(row[wer_column]) for row in rows if row[wer_column]}
    except ValueError:
        raise InputError(f"{file}: run {name or '1'}: a step or WER is not a number") from None
    params = {column: cell for column, cell in rows[-1].items() if cell}
    last_step = max(wers, default=0)
    max_steps = params.get("max_steps", "")
    reason = f"ends at step {last_step} of {max_steps or '?'}"
    ending: Ending
    if not all(math.isfinite(wer) for wer in wers.values()):
        ending = "diverged"
    elif not max_steps.isdecimal():
        ending = "unknown"
    elif last_step < int(max_steps):
        ending = "crashed"
    else:
        ending = "finished"
        reason = f"trained by hand, {last_step} steps"
    return HandRun(
        name=name or file.stem,
        digest=digest("csv", name, json.dumps(rows, sort_keys=True)),
        params=params,
        curve=by_step({step: wer for step, wer in wers.items() if math.isfinite(wer)}),
        ending=ending,
        reason=reason,
        last_step=last_step,
        measure=_WER_COLUMNS[wer_column],
    )


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


_READERS: Mapping[str, Callable[[Path, str], list[HandRun]]] = {
    ".yaml": _read_results_yaml,
    ".yml": _read_results_yaml,
    ".json": _read_trainer_state,
    ".csv": _read_csv,
}
