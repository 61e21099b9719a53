"""AdamW: its parameter groups, its learning rate at every step, its moments for a checkpoint.

Its moments take eight bytes a parameter, or two by torchao's AdamW in 8 bits (Dettmers et al. 2021).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.model import trainable
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.whisper import Whisper
from tmsearch.training.optim.mixed_precision import MixedPrecisionAdamW
from tmsearch.training.optim.stochastic_rounding import StochasticRoundingAdamW

# What an 8-bit moment consists of, besides a table that is always the same: codes like the weight, and a scale for each
# block of them.
_PARTS = ("codes", "scale")


def rate_factor(config: TrainConfig, step: int) -> float:
    """The share of the peak learning rate that optimizer step `step`, counted from 1, uses.

    The warmup ends at the peak; the decay spans the rest of `max_steps`, and no step has a rate of zero.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    peak = max(1, config.warmup_steps)
    progress = (step - peak) / max(1, config.max_steps - peak + 1)
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress


def depth(name: str, encoder_layers: int, decoder_layers: int) -> int:
    """The number of layers between parameter `name` and the output, along one chain from convolutions to last decoder
    layer.

    The token table is also the output layer; it counts as the decoder's input, as is usual in layer-wise decay.
    """
    if name.startswith("proj_out."):  # a checkpoint that does not tie it to the token table
        return 0
    _, stack, child, *deeper = name.split(".")
    if stack == "encoder":
        if child == "layers":
            return decoder_layers + encoder_layers - int(deeper[0])
        return decoder_layers + 1 if child == "layer_norm" else decoder_layers + encoder_layers + 1
    if child == "layers":
        return decoder_layers - int(deeper[0])
    return 0 if child == "layer_norm" else decoder_layers + 1


def adamw(whisper: Whisper, config: TrainConfig, kernels: FusedKernels | None = None) -> torch.optim.Optimizer:
    """AdamW over the trained parameters, in groups that hold their share of the peak rate as `scale`.

    Biases and layer norms, which have one dimension, get no weight decay. `kernels` are those that keep the
    gradients and casts of float32 weights.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    sizes = whisper.model.config
    for name, weight in trainable.trainable_parameters(whisper).items():
        scale = config.layer_decay ** depth(name, sizes.encoder_layers, sizes.decoder_layers)
        decay = config.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(weight)
    named = [{"params": weights, "scale": scale, "weight_decay": decay} for (scale, decay), weights in groups.items()]
    if config.optimizer == "adamw_8bit":
        return _eight_bit_adamw(named, config)
    betas = (config.adam_beta1, config.adam_beta2)
    if config.low_memory:
        is_compiled = config.compile is not False and devices.has_compiler(whisper.model.device)
        return StochasticRoundingAdamW(named, config.learning_rate, betas, config.adam_epsilon, is_compiled)
    if kernels is not None:
        return MixedPrecisionAdamW(named, config.learning_rate, betas, config.adam_epsilon, kernels)
    # Fused: one pass over each weight; bit-equal from run to run, as the tests hold.
    return torch.optim.AdamW(named, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=True)


def clip(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], most: float) -> torch.Tensor:
    """Scales the gradients of `weights` so that their norm is at most `most`; returns the norm before, []."""
    if isinstance(optimizer, MixedPrecisionAdamW):
        return optimizer.clip(most)
    return nn.utils.clip_grad_norm_(weights, most)


def set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Gives every group its learning rate for optimizer step `step`; returns the rate of the layers at the output."""
    peak = config.learning_rate * rate_factor(config, step)
    for group in optimizer.param_groups:
        rate = peak * group["scale"]
        if isinstance(group["lr"], torch.Tensor):  # torchao's, which are on the CPU
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return peak


def moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter | torch.Tensor], exact: bool = True
) -> dict[str, torch.Tensor]:
    """AdamW's state as `MOMENT/PARAMETER` -> tensor; layers that were always skipped have none.

    Where not `exact`, the moments are in bfloat16: training resumed from them is close to the unbroken one, not equal.
    """
    state = {}
    for name, weight in weights.items():
        for key, value in optimizer.state.get(weight, {}).items():
            for suffix, part in _stored_parts(value):
                is_kept = exact or part.ndim == 0 or suffix
                state[f"{key}{suffix}/{name}"] = part if is_kept else part.bfloat16()
    return state


def set_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], saved: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what `moments` returned. Raises ValueError where a shape is not its weight's."""
    for key_and_name, value in saved.items():
        key, name = key_and_name.split("/", 1)
        weight = weights[name]
        if _is_eight_bit(optimizer):
            _set_part(optimizer, weight, key, value)
            continue
        if value.ndim and value.shape != weight.shape:
            raise ValueError(f"{key_and_name} has shape {list(value.shape)}, its weight {list(weight.shape)}")
        # The step count lies on the weight's device where AdamW is fused, on the CPU in StochasticRoundingAdamW.
        on_device = value.ndim or isinstance(optimizer, torch.optim.AdamW)
        device = weight.device if on_device else value.device
        dtype = weight.dtype if value.ndim else value.dtype
        optimizer.state[weight][key] = value.to(device, dtype)


def check_installed(config: TrainConfig) -> None:
    """Raises InputError, in one line, where `config` wants 8-bit moments and torchao is not installed."""
    if config.optimizer == "adamw_8bit" and importlib.util.find_spec("torchao") is None:
        raise InputError("train.optimizer: adamw_8bit needs torchao; pip install 'tmsearch[8bit]', or set it to adamw")


def _eight_bit_adamw(groups: Sequence[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """torchao's AdamW over `groups`; updates of bfloat16 weights are rounded at random. Raises InputError without it.

    Moments of fewer than 4,096 numbers, or of such as blocks of 256 do not divide, stay in the weight's format.
    """
    check_installed(config)
    from torchao.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(
        list(groups),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        bf16_stochastic_round=config.low_memory,
    )
    return optimizer


def _is_eight_bit(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `optimizer` is torchao's."""
    return type(optimizer).__module__.startswith("torchao.")


def _stored_parts(moment: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What a checkpoint keeps of a moment: ("", itself), or its parts in 8 bits (".codes", ...)."""
    if not hasattr(moment, "codes"):
        yield "", moment
        return
    for name in _PARTS:
        yield f".{name}", getattr(moment, name)


def _set_part(optimizer: Any, weight: nn.Parameter, key: str, value: torch.Tensor) -> None:
    """Puts back what `_stored_parts` gave: `key` as exp_avg, exp_avg_sq.codes or step.

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
