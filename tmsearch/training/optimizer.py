"""AdamW: its parameter groups, its learning rate at every step, its moments for a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model.whisper import Whisper
from tmsearch.training import eight_bit
from tmsearch.training.stochastic_rounding import StochasticRoundingAdamW


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


def adamw(whisper: Whisper, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the trained parameters, in groups that hold their share of the peak rate as `scale`.

    Biases and layer norms, which have one dimension, get no weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    sizes = whisper.model.config
    for name, weight in trainable.trainable_parameters(whisper).items():
        scale = config.layer_decay ** depth(name, sizes.encoder_layers, sizes.decoder_layers)
        decay = config.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(weight)
    named = [{"params": weights, "scale": scale, "weight_decay": decay} for (scale, decay), weights in groups.items()]
    if config.optimizer == "adamw_8bit":
        return eight_bit.adamw(named, config)
    betas = (config.adam_beta1, config.adam_beta2)
    if config.low_memory:
        is_compiled = devices.has_compiler(next(whisper.model.parameters()).device)
        return StochasticRoundingAdamW(named, config.learning_rate, betas, config.adam_epsilon, is_compiled)
    # Fused: one pass over each weight; bit-equal from run to run, as the tests hold.
    return torch.optim.AdamW(named, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=True)


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
            for suffix, part in eight_bit.stored_parts(value):
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
        if eight_bit.is_eight_bit(optimizer):
            eight_bit.set_part(optimizer, weight, key, value)
            continue
        if value.ndim and value.shape != weight.shape:
            raise ValueError(f"{key_and_name} has shape {list(value.shape)}, its weight {list(weight.shape)}")
        # The step count lies on the weight's device where AdamW is fused, on the CPU in StochasticRoundingAdamW.
        on_device = value.ndim or isinstance(optimizer, torch.optim.AdamW)
        device = weight.device if on_device else value.device
        dtype = weight.dtype if value.ndim else value.dtype
        optimizer.state[weight][key] = value.to(device, dtype)
