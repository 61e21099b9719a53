"""A training by its TensorBoard events: Hugging Face's Trainer's, or our own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tmsearch.errors import InputError
from tmsearch.foreign import parsers
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.importers.record import Ending, HandRun, by_step, digest, whole_number

# Trainer's callback writes the first tag, older scripts the second, our own trials the last.
_WER_TAGS = ("eval/wer", "eval_wer", "wer")
_LOSS_TAGS = ("train/loss", "loss")
_ARGUMENT_TAGS = ("args/text_summary", "args")
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant_with_warmup": "constant"}
# Trainer's argument -> our knob.
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
    """Reads scalars of loss and WER, and the arguments that Trainer writes as text. Raises InputError."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0})
    try:
        events.Reload()
        tags = events.Tags()
    except Exception as error:  # a damaged file raises any of a dozen classes
        raise InputError(f"{file}: not readable as TensorBoard events ({type(error).__name__})") from None
    scalar_tags = tags["scalars"]
    wer_tag = next((tag for tag in _WER_TAGS if tag in scalar_tags), None)
    if wer_tag is None:
        listing = ", ".join(scalar_tags[:8]) or "none"
        raise InputError(f"{file}: has no scalar {', '.join(_WER_TAGS)}; its scalars are {listing}")
    wers = dict(_scalars(events, wer_tag))
    loss_tag = next((tag for tag in _LOSS_TAGS if tag in scalar_tags), None)
    losses = _scalars(events, loss_tag) if loss_tag else []
    params = _params(events, tags)
    last_step = max([*wers, *(step for step, _ in losses)], default=0)
    ending, reason = _ending(last_step, params.get("max_steps"), all(math.isfinite(loss) for _, loss in losses))
    curve = by_step({step: wer for step, wer in wers.items() if math.isfinite(wer)})
    identity = digest("events", str(curve), str(losses))
    return HandRun(file.parent.name, identity, params, curve, ending, reason, last_step)


def _scalars(events: Any, tag: str) -> list[tuple[int, float]]:
    """(step, value) of every event with this tag."""
    return [(int(event.step), float(event.value)) for event in events.Scalars(tag)]


def _ending(last_step: int, max_steps: int | None, is_finite: bool) -> tuple[Ending, str]:
    if not is_finite:
        return "diverged", f"the loss was not finite by step {last_step}"
    if max_steps is None:
        return "unknown", f"ends at step {last_step}, and nothing says of how many"
    if last_step >= max_steps:
        return "finished", f"trained by hand, {last_step} steps"
    return "crashed", f"ends at step {last_step} of {max_steps}"


def _params(events: Any, tags: Any) -> dict[str, Any]:
    """Knobs from Trainer's text `args`; the batch size is that of a device times the accumulation steps."""
    tag = next((tag for tag in tags.get("tensors", []) if tag in _ARGUMENT_TAGS), None)
    if tag is None:
        return {}
    try:
        arguments = parsers.parse_json(events.Tensors(tag)[-1].tensor_proto.string_val[0].decode())
    except (ForeignFileError, IndexError, UnicodeDecodeError):
        return {}
    if not isinstance(arguments, dict):
        return {}
    params = {}
    for argument, knob in _ARGUMENTS.items():
        if isinstance(arguments.get(argument), int | float | str):
            params[knob] = arguments[argument]
    if not whole_number(params.get("max_steps")):
        params.pop("max_steps", None)
    device_batch = whole_number(arguments.get("per_device_train_batch_size"))
    accumulation = whole_number(arguments.get("gradient_accumulation_steps"))
    if device_batch and accumulation:
        params["batch_size"] = device_batch * accumulation
    schedule = _SCHEDULES.get(str(arguments.get("lr_scheduler_type")))
    if schedule:
        params["schedule"] = schedule
    return params
