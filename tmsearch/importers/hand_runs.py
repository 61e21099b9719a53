"""Logs of hand-run trainings -> runs: results.yaml, trainer_state.json; TensorBoard events and CSV by their readers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tmsearch.errors import InputError
from tmsearch.foreign import parsers, plain_files
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.importers import csv_logs
from tmsearch.importers.record import Ending, HandRun, by_step, digest, number, whole_number

_LONGEST_MESSAGE = 10_000  # characters of a message that are looked at

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


def read(path: Path, knobs: Collection[str]) -> list[HandRun]:
    """Reads every training of a log.

    Args:
        path: The log, or a folder that holds one.
        knobs: Names of the knobs to take from it; other settings are ignored.

    Raises:
        InputError: The log is of none of the known kinds, or holds no WER.
    """
    runs = []
    for run in _read_file(_find_log(path), knobs):
        params = {name: value for name, value in run.params.items() if name in knobs}
        runs.append(replace(run, params=params))
    return runs


def _read_file(file: Path, knobs: Collection[str]) -> list[HandRun]:
    try:
        plain_files.open_plain(file).close()
        if file.name.startswith("events.out.tfevents"):
            from tmsearch.importers import tensorboard_events

            return [tensorboard_events.read(file)]
        reader = _READERS.get(file.suffix)
        if reader is None:
            raise InputError(
                f"{file}: not a log; give a results.yaml, a trainer_state.json, TensorBoard events or a .csv"
            )
        text = plain_files.read_text(file)
    except ForeignFileError as error:
        raise InputError(error.at(str(file)) + "; give the log itself") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    runs = reader(file, text, knobs)
    if not runs:
        raise InputError(f"{file}: has no rows; there is nothing to import")
    for run in runs:
        if not run.curve and run.ending in ("finished", "unknown"):
            raise InputError(f"{file}: has no WER at any step; there is nothing to import")
    return runs


def _find_log(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a log")
    if not path.is_dir():
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

    def add(self, event: Any) -> None:
        if not isinstance(event, Mapping):
            return
        kind = event.get("type")
        value = number(event.get("value"))
        if kind == "message":
            self._add_message(str(event.get("content", ""))[:_LONGEST_MESSAGE].strip())
        elif kind == "metric" and event.get("name") == "train_eval_wer" and value is not None:
            self.wers[self.step] = value
        elif kind == "metric" and event.get("name") == "train_loss":
            self.has_diverged = self.has_diverged or value is None or not math.isfinite(value)

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


def _read_results_yaml(file: Path, text: str, knobs: Collection[str]) -> list[HandRun]:
    try:
        log = parsers.parse_yaml(text)
    except ForeignFileError as error:
        raise InputError(f"{file}: not a training's results.yaml: {error}") from None
    sections = log if isinstance(log, dict) else {}
    metadata = sections.get("metadata")
    events = sections.get("timeline")
    if not isinstance(metadata, dict) or not isinstance(events, list) or not _is_scalar(metadata.get("name")):
        raise InputError(f"{file}: not a training's results.yaml: metadata and timeline are missing")
    name = str(metadata["name"])
    start_time = str(metadata.get("start_time")) if _is_scalar(metadata.get("start_time")) else "None"
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


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, dict | list | set)


def _read_trainer_state(file: Path, text: str, knobs: Collection[str]) -> list[HandRun]:
    try:
        state = parsers.parse_json(text)
    except ForeignFileError as error:
        raise InputError(f"{file}: not a trainer_state.json (log_history and global_step): {error}") from None
    history = state.get("log_history") if isinstance(state, dict) else None
    step = whole_number(state.get("global_step")) if isinstance(state, dict) else None
    if not isinstance(history, list) or step is None:
        raise InputError(f"{file}: not a trainer_state.json: log_history and global_step are missing")
    entries = [entry for entry in history if isinstance(entry, dict)]
    wers = {}
    for entry in entries:
        entry_step = whole_number(entry.get("step"))
        wer = number(entry.get("eval_wer"))
        if entry_step is not None and wer is not None:
            wers[entry_step] = wer
    losses = [number(entry["loss"]) for entry in entries if "loss" in entry]
    max_steps = whole_number(state.get("max_steps")) or 0
    should_stop = _nested(state, "stateful_callbacks", "TrainerControl", "args", "should_training_stop") is True
    ending: Ending
    if not all(loss is not None and math.isfinite(loss) for loss in losses):
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


def _nested(value: Any, *keys: str) -> Any:
    """What lies under `keys` in objects inside each other; None where one of them is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


_Reader = Callable[[Path, str, Collection[str]], list[HandRun]]
_READERS: Mapping[str, _Reader] = {
    ".yaml": _read_results_yaml,
    ".yml": _read_results_yaml,
    ".json": _read_trainer_state,
    ".csv": csv_logs.read,
}
