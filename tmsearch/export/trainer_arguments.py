"""A recipe as Hugging Face's Seq2SeqTrainingArguments, and what those cannot hold of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tmsearch.config import TrainConfig

# Our schedules' names there. Ours holds its rate after the warmup, as theirs does under another name.
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_torch_8bit"}  # the second by torchao, there too
_SAME_NAME = ("max_steps", "learning_rate", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
_COVERED = {
    *_SAME_NAME,
    "batch_size",
    "micro_batch_size",
    "eval_batch_size",
    "schedule",
    "max_grad_norm",
    "seed",
    "compile",
    "optimizer",
    "gradient_checkpointing",
}
# Knobs of our own loop that change no result worth naming.
_OWN = {"exact_checkpoints"}


def arguments(config: TrainConfig) -> dict[str, Any]:
    """Keyword arguments of transformers' Seq2SeqTrainingArguments.

    A batch that is no multiple of its micro-batch is rounded down to one.
    """
    micro_batch = min(config.micro_batch_size or config.batch_size, config.batch_size)
    named = {
        "output_dir": "output",
        **{name: getattr(config, name) for name in _SAME_NAME},
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": config.batch_size // micro_batch,
        "per_device_eval_batch_size": config.eval_batch_size,
        "lr_scheduler_type": _SCHEDULES[config.schedule],
        "max_grad_norm": config.max_grad_norm,
        "optim": _OPTIMIZERS[config.optimizer],
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": config.precision == "bf16",
        "torch_compile": config.compile is True,
        "predict_with_generate": True,
        "remove_unused_columns": False,
    }
    if config.gradient_checkpointing:
        named["activation_checkpointing"] = True  # its name since transformers 5; the former warns
    return named


def left_out(config: TrainConfig) -> Mapping[str, Any]:
    """The model, and the knobs that differ from their defaults and have no argument: a script must apply them."""
    defaults = dataclasses.asdict(TrainConfig())
    knobs = {"model": config.model}
    for name, value in dataclasses.asdict(config).items():
        if name not in _COVERED | _OWN and value != defaults[name]:
            knobs[name] = value
    return knobs


def text(config: TrainConfig) -> str:
    """A JSON file that `HfArgumentParser(Seq2SeqTrainingArguments).parse_json_file` reads."""
    return json.dumps(arguments(config), indent=2) + "\n"
