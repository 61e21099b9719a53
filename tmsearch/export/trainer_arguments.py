"""A recipe as Hugging Face's Seq2SeqTrainingArguments, and what of it those do not hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tmsearch.config import TrainConfig

# How ours are named there. Ours holds its rate after the warmup, as theirs does under another name.
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_SAME = ("max_steps", "learning_rate", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
_HELD = {*_SAME, "batch_size", "micro_batch_size", "eval_batch_size", "schedule", "max_grad_norm", "seed", "compile"}
# What only says how our own loop runs, and changes no result worth naming.
_OWN = {"exact_checkpoints"}


def arguments(config: TrainConfig) -> dict[str, Any]:
    """Keyword arguments of transformers' Seq2SeqTrainingArguments.

    A batch that its micro-batches do not divide becomes the next smaller whole number of them a step.
    """
    micro = min(config.micro_batch_size or config.batch_size, config.batch_size)
    held = {name: getattr(config, name) for name in _SAME}
    return {
        "output_dir": "output",
        **held,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        "per_device_eval_batch_size": config.eval_batch_size,
        "lr_scheduler_type": _SCHEDULES[config.schedule],
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch",
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": config.precision == "bf16",
        "torch_compile": config.compile,
        "predict_with_generate": True,
        "remove_unused_columns": False,
    }


def left_out(config: TrainConfig) -> Mapping[str, Any]:
    """The model, and the knobs away from their defaults that the arguments have no place for: a script sees to them."""
    knobs = dataclasses.asdict(config)
    defaults = dataclasses.asdict(TrainConfig())
    away = {name: value for name, value in knobs.items() if name not in _HELD | _OWN and value != defaults[name]}
    return {"model": config.model, **away}


def text(config: TrainConfig) -> str:
    """A JSON file that `HfArgumentParser(Seq2SeqTrainingArguments).parse_json_file` reads."""
    return json.dumps(arguments(config), indent=2) + "\n"
