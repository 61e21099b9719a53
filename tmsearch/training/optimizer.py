"""AdamW: its parameter groups, its rates at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model.whisper import Whisper
from tmsearch.training.rounding import StochasticRoundingAdamW


def rate_factor(config: TrainConfig, step: int) -> float:
    """The share of the peak rate that update number `step`, from 1, uses.

    The warmup ends at the peak; the decay spans what is left of `max_steps`, and no update has a rate of zero.
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
    """How many layers lie between a parameter and the output: one chain, from convolutions to last decoder layer.

    The token table is also the output layer; it counts as the decoder's input, as layer-wise decay does elsewhere.
    """
    if name.startswith("proj_out."):  # a checkpoint that does not tie it to the token table
        return 0
    _, part, *rest = name.split(".")
    if part == "encoder":
        if rest[0] == "layers":
            return decoder_layers + encoder_layers - int(rest[1])
        return decoder_layers + 1 if rest[0] == "layer_norm" else decoder_layers + encoder_layers + 1
    if rest[0] == "layers":
        return decoder_layers - int(rest[1])
    return 0 if rest[0] == "layer_norm" else decoder_layers + 1


def adamw(whisper: Whisper, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; each group keeps its share of the peak rate under `scale`.

    Biases and layer norms, which have one dimension, are not decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    settings = whisper.model.config
    for name, weight in trainable.trainable_parameters(whisper).items():
        scale = config.layer_decay ** depth(name, settings.encoder_layers, settings.decoder_layers)
        decay = config.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(weight)
    named = [{"params": weights, "scale": scale, "weight_decay": decay} for (scale, decay), weights in groups.items()]
    rate, betas, epsilon = config.learning_rate, (config.adam_beta1, config.adam_beta2), config.adam_epsilon
    if config.low_memory:
        return StochasticRoundingAdamW(named, rate, betas, epsilon)
    # Fused: one pass over each weight; equal to the bit from run to run, as the tests hold.
    return torch.optim.AdamW(named, lr=rate, betas=betas, eps=epsilon, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Gives every group its rate for update `step`; returns the rate of the layers at the output."""
    peak = config.learning_rate * rate_factor(config, step)
    for group in optimiser.param_groups:
        group["lr"] = peak * group["scale"]
    return peak


def moments(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter | torch.Tensor], exact: bool = True
) -> dict[str, torch.Tensor]:
    """AdamW's state as `MOMENT/PARAMETER` -> tensor; layers that were always skipped have none.

    Where not `exact`, moments in bfloat16: a training that goes on from them is close to the unbroken one, not equal.
    """
    return {
        f"{key}/{name}": value if exact or value.ndim == 0 else value.bfloat16()
        for name, weight in weights.items()
        for key, value in optimiser.state.get(weight, {}).items()
    }


def set_moments(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], saved: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what `moments` gave."""
    for key_and_name, value in saved.items():
        key, name = key_and_name.split("/", 1)
        weight = weights[name]
        # AdamW counts its steps on the weight's device where it is fused; RoundingAdamW on the CPU.
        device = weight.device if value.ndim or isinstance(optimiser, torch.optim.AdamW) else value.device
        dtype = weight.dtype if value.ndim else value.dtype
        optimiser.state[weight][key] = value.to(device, dtype)
