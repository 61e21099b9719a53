"""A training by its TensorBoard events: Hugging Face's Trainer's, or our own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tmsearch.config import TrainConfig, knobs
from tmsearch.errors import InputError
from tmsearch.importers.hand_runs import Ending, HandRun, digest

# Tags of a WER: Trainer's callback writes the first, older scripts the second, our own trials the last.
_WER, _LOSS = ("eval/wer", "eval_wer", "wer"), ("train/loss", "loss")
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant_with_warmup": "constant"}
_ARGUMENTS = {
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "label_smoothing_factor": "label_smoothing",
}


def read(file: Path) -> HandRun:
    """Scalars of loss and WER, and the arguments that Trainer writes as text. Raises InputError."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0})
    try:
        events.Reload()
        tags = events.Tags()
    except Exception as error:  # a damaged file is answered with a dozen classes
        raise InputError(f"{file}: not readable as TensorBoard events ({type(error).__name__})") from None
    wer = next((tag for tag in _WER if tag in tags["scalars"]), None)
    if wer is None:
        there = ", ".join(tags["scalars"][:8]) or "none"
        raise InputError(f"{file}: has no scalar {', '.join(_WER)}; there are {there}")
    curve = {int(one.step): float(one.value) for one in events.Scalars(wer)}
    loss = next((tag for tag in _LOSS if tag in tags["scalars"]), None)
    losses = [(int(one.step), float(one.value)) for one in events.Scalars(loss)] if loss else []
    params = _arguments(events, tags)
    last, most = max([*curve, *(step for step, _ in losses)], default=0), params.get("max_steps")
    ending, reason = _ending(last, most, all(math.isfinite(value) for _, value in losses))
    ordered = tuple(sorted((step, value) for step, value in curve.items() if math.isfinite(value)))
    identity = digest("events", str(ordered), str(losses))
    return HandRun(file.parent.name, identity, params, ordered, ending, reason, last)


def _ending(last: int, most: int | None, finite: bool) -> tuple[Ending, str]:
    if not finite:
        return "diverged", f"the loss was not finite by step {last}"
    if most is None:
        return "unknown", f"ends at step {last}, and nothing says of how many"
    if last >= most:
        return "finished", f"trained by hand, {last} steps"
    return "crashed", f"ends at step {last} of {most}"


def _arguments(events: Any, tags: Any) -> dict[str, Any]:
    """Knobs that Trainer's text `args` tells; a batch is its parts times their accumulation."""
    tag = next((one for one in tags.get("tensors", []) if one in ("args/text_summary", "args")), None)
    if tag is None:
        return {}
    try:
        told = json.loads(events.Tensors(tag)[-1].tensor_proto.string_val[0].decode())
    except (ValueError, IndexError, UnicodeDecodeError):
        return {}
    found = {ours: told[theirs] for theirs, ours in _ARGUMENTS.items() if told.get(theirs) is not None}
    if int(found.get("max_steps", 0)) <= 0:
        found.pop("max_steps", None)
    micro, parts = told.get("per_device_train_batch_size"), told.get("gradient_accumulation_steps")
    if micro and parts:
        found["batch_size"] = int(micro) * int(parts)
    if told.get("lr_scheduler_type") in _SCHEDULES:
        found["schedule"] = _SCHEDULES[told["lr_scheduler_type"]]
    return {name: value for name, value in found.items() if name in knobs(TrainConfig)}
