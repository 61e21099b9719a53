"""AdamW with its moments in 8 bits, by torchao: two bytes a parameter instead of eight (Dettmers et al. 2021)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError

# What an 8-bit moment consists of, besides a table that is always the same: codes like the weight, and a scale for each
# block of them.
_PARTS = ("codes", "scale")


def check(config: TrainConfig) -> None:
    """Raises InputError, in one line, where `config` wants 8-bit moments and torchao is not installed."""
    if config.optimizer == "adamw_8bit" and importlib.util.find_spec("torchao") is None:
        raise InputError("train.optimizer: adamw_8bit needs torchao; pip install 'tmsearch[8bit]', or set it to adamw")


def adamw(groups: Sequence[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """torchao's AdamW over `groups`; updates of bfloat16 weights are rounded at random. Raises InputError without it.

    Moments of fewer than 4,096 numbers, or of such as blocks of 256 do not divide, stay in the weight's format.
    """
    check(config)
    from torchao.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(
        list(groups),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        bf16_stochastic_round=config.low_memory,
    )
    return optimizer


def is_eight_bit(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `optimizer` is one of this module's."""
    return type(optimizer).__module__.startswith("torchao.")


def stored_parts(moment: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What a checkpoint keeps of a moment: ("", itself), or its parts in 8 bits (".codes", ...)."""
    if not hasattr(moment, "codes"):
        yield "", moment
        return
    for name in _PARTS:
        yield f".{name}", getattr(moment, name)


def set_part(optimizer: Any, weight: nn.Parameter, key: str, value: torch.Tensor) -> None:
    """Puts back what `stored_parts` gave: `key` as exp_avg, exp_avg_sq.codes or step.

    Raises ValueError where a shape is not what the weight's has.
    """
    name, _, part = key.partition(".")
    state = optimizer.state[weight]
    if name == "step":
        state[name] = value.clone()
        return
    if name not in state:
        state[name] = optimizer._new_buffer(weight, name == "exp_avg")
    place = getattr(state[name], part) if part else state[name]
    if place.shape != value.shape:
        raise ValueError(f"{key} has shape {list(value.shape)}, its place {list(place.shape)}")
    with torch.no_grad():
        place.copy_(value)
