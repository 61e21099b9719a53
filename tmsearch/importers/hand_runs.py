"""Logs of hand-run trainings, read for what they tell: results.yaml, trainer_state.json, TensorBoard events, CSV."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tmsearch.errors import InputError

Measure = Literal["raw", "normalised"]
Ending = Literal["finished", "crashed", "diverged", "unknown"]


@dataclass(frozen=True)
class HandRun:
    """One training as its log tells it: nothing is filled in that it does not tell.

    `params` hold knobs of TrainConfig by name, `curve` the WER at each step that was evaluated, as a fraction where
    `measure` and `percent` are known. `digest` is a sha256 of what was read, by which a run is known again.
    """

    name: str
    digest: str
    params: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...]
    ending: Ending
    reason: str
    last_step: int
    measure: Measure | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # dataset, train_clips, validation_clips


def read(path: Path) -> list[HandRun]:
    """Every training of a log file, or of a folder with one; raises InputError where it is none of the known kinds."""
    file = _file(path)
    if file.name.startswith("events.out.tfevents"):
        from tmsearch.importers.tensorboard_events import read as read_events

        return [read_events(file)]
    reader = _READERS.get(file.suffix)
    if reader is None:
        raise InputError(f"{file}: no log; give a results.yaml, a trainer_state.json, TensorBoard events or a .csv")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable as text ({error.__class__.__name__}); give the log itself") from None
    runs = reader(file, text)
    for run in runs:
        if not run.curve and run.ending == "finished":
            raise InputError(f"{file}: tells no WER at any step; there is nothing to import")
    return runs


def in_fractions(run: HandRun, file: Path, percent: bool | None) -> HandRun:
    """WERs as fractions. Above 3 they look like per cent, which is asked for and not guessed; raises InputError."""
    top = max((wer for _, wer in run.curve), default=0.0)
    if percent is None and top > 3:
        raise InputError(f"{file}: --percent: WERs up to {top:g}: are they per cent? say --percent or --no-percent")
    return replace(run, curve=tuple((step, wer / 100) for step, wer in run.curve)) if percent else run


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _file(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a log")
    if path.is_file():
        return path
    for pattern in ("results.yaml", "trainer_state.json", "events.out.tfevents*", "*.csv"):
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{path}: {len(found)} files {pattern}; name the one that is meant")
    raise InputError(f"{path}: no results.yaml, trainer_state.json, TensorBoard events or .csv in it; name the log")


# pauljunsukhan/whisper_finetuning, as in its own logs; `normalize` did nothing there: the processor ignores the word.
_TOLD: Mapping[str, tuple[str, Callable[[str], Any]]] = {
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
_TOLD_OF_DATA: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "Source": ("dataset", str),
    "Training Examples": ("train_clips", int),
    "Testing Examples": ("validation_clips", int),
}


def _results_yaml(file: Path, text: str) -> list[HandRun]:
    try:
        whole = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        timeline = whole["timeline"]
        name, begun = str(whole["metadata"]["name"]), str(whole["metadata"].get("start_time"))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: no results.yaml of a training: metadata and timeline are missing") from None
    params: dict[str, Any] = {}
    data: dict[str, Any] = {}
    curve: dict[int, float] = {}
    step, said = 0, ""
    complete = diverged = False
    for event in timeline:
        if event.get("type") == "message":
            said = str(event.get("content", "")).strip()
            params |= _told(said, _TOLD)
            data |= _told(said, _TOLD_OF_DATA)
            at = re.match(r"Training Metrics - Step (\d+)", said)
            step = int(at[1]) if at else step
            complete = complete or said.startswith("Experiment complete")
        elif event.get("type") == "metric" and event.get("name") == "train_eval_wer":
            curve[step] = float(event["value"])
        elif event.get("type") == "metric" and event.get("name") == "train_loss":
            diverged = diverged or not _finite(event["value"])
    ending: Ending = "diverged" if diverged else "finished" if complete else "crashed"
    last, most = max(curve, default=0), params.get("max_steps")
    reason = {
        "finished": f"trained by hand, {last} steps" + (f" of {most}, stopped early" if most and last < most else ""),
        "crashed": f"ended at step {step} of {most or '?'} without saying that it was complete: {said[:80]}",
        "diverged": f"the loss was not finite by step {step}",
    }[ending]
    identity = digest("results.yaml", name, begun, text)
    return [HandRun(file.parent.name or name, identity, params, _ordered(curve), ending, reason, last, "raw", data)]


def _told(said: str, known: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    key, colon, value = said.partition(":")
    if not colon or key.strip() not in known or "\n" in said.strip():
        return {}
    name, converted = known[key.strip()]
    try:
        return {name: converted(value.strip())}
    except ValueError:
        return {}


def _trainer_state(file: Path, text: str) -> list[HandRun]:
    try:
        state = json.loads(text)
        history, step = state["log_history"], int(state["global_step"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: no trainer_state.json: log_history and global_step are missing") from None
    curve = {int(one["step"]): float(one["eval_wer"]) for one in history if "eval_wer" in one and "step" in one}
    losses = [float(one["loss"]) for one in history if "loss" in one]
    most = int(state.get("max_steps") or 0)
    params: dict[str, Any] = {"max_steps": most} if most > 0 else {}
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    stopped = bool((control.get("args") or {}).get("should_training_stop"))
    if any(not math.isfinite(loss) for loss in losses):
        ending, reason = "diverged", f"the loss was not finite by step {step}"
    elif stopped or (most and step >= most):
        ending, reason = "finished", f"trained by hand, {step} steps" + (f" of {most}" if step < most else "")
    else:
        ending, reason = "crashed", f"ended at step {step} of {most or '?'}, and nothing says that it was to"
    run = HandRun(file.parent.name, digest("trainer_state", text), params, _ordered(curve), ending, reason, step)  # type: ignore[arg-type]
    return [run]


def _csv(file: Path, text: str) -> list[HandRun]:
    """Columns: step; wer, eval_wer, wer_raw or wer_normalised; `run`, where there are several; knobs by their names."""
    from tmsearch.config import TrainConfig, knobs

    rows = list(csv.DictReader(text.splitlines()))
    columns = [column.strip() for column in (rows[0] if rows else {})]
    measured = next((one for one in ("wer_raw", "wer_normalised", "wer", "eval_wer") if one in columns), None)
    if "step" not in columns or measured is None:
        raise InputError(f"{file}: columns step and wer (or wer_raw, wer_normalised) are missing; name them in line 1")
    legal, grouped = knobs(TrainConfig), dict[str, list[dict[str, str]]]()
    for row in rows:
        clean = {str(key).strip(): (value or "").strip() for key, value in row.items()}
        grouped.setdefault(clean.get("run", ""), []).append(clean)
    measure: Measure | None = {"wer_raw": "raw", "wer_normalised": "normalised"}.get(measured)  # type: ignore[assignment]
    found = []
    for name, lines in grouped.items():
        try:
            curve = {int(row["step"]): float(row[measured]) for row in lines if row[measured]}
        except ValueError:
            raise InputError(f"{file}: run {name or '1'}: a step or WER is no number") from None
        params = {key: value for key, value in lines[-1].items() if key in legal and value}
        finite = all(math.isfinite(value) for value in curve.values())
        last, most = max(curve, default=0), params.get("max_steps", "")
        whole = most.isdecimal() and last >= int(most)
        short: Ending = "crashed" if most.isdecimal() else "unknown"
        ending: Ending = "diverged" if not finite else "finished" if whole else short
        curve = {step: value for step, value in curve.items() if math.isfinite(value)}
        reason = f"trained by hand, {last} steps" if ending == "finished" else f"ends at step {last} of {most or '?'}"
        identity = digest("csv", name, json.dumps(lines, sort_keys=True))
        found.append(HandRun(name or file.stem, identity, params, _ordered(curve), ending, reason, last, measure))
    return found


def _ordered(curve: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(curve.items()))


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


_READERS: Mapping[str, Callable[[Path, str], list[HandRun]]] = {
    ".yaml": _results_yaml,
    ".yml": _results_yaml,
    ".json": _trainer_state,
    ".csv": _csv,
}
