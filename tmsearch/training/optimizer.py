"""AdamW: its parameter groups, its learning rate at every step, and a variant for bfloat16 weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model.whisper import Whisper

_DROPPED_BITS = 16  # low bits of a float32 that a bfloat16 lacks


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
    betas = (config.adam_beta1, config.adam_beta2)
    if config.low_memory:
        return StochasticRoundingAdamW(named, config.learning_rate, betas, config.adam_epsilon)
    # Fused: one pass over each weight; bit-equal from run to run, as the tests hold.
    return torch.optim.AdamW(named, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Gives every group its learning rate for optimizer step `step`; returns the rate of the layers at the output."""
    peak = config.learning_rate * rate_factor(config, step)
    for group in optimizer.param_groups:
        group["lr"] = peak * group["scale"]
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
            state[f"{key}/{name}"] = value if exact or value.ndim == 0 else value.bfloat16()
    return state


def set_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], saved: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what `moments` returned. Raises ValueError where a shape is not its weight's."""
    for key_and_name, value in saved.items():
        key, name = key_and_name.split("/", 1)
        weight = weights[name]
        if value.ndim and value.shape != weight.shape:
            raise ValueError(f"{key_and_name} has shape {list(value.shape)}, its weight {list(weight.shape)}")
        # The step count lies on the weight's device where AdamW is fused, on the CPU in StochasticRoundingAdamW.
        on_device = value.ndim or isinstance(optimizer, torch.optim.AdamW)
        device = weight.device if on_device else value.device
        dtype = weight.dtype if value.ndim else value.dtype
        optimizer.state[weight][key] = value.to(device, dtype)


def round_stochastically(exact: torch.Tensor, rounded: torch.Tensor) -> None:
    """Writes float32 `exact` into bfloat16 `rounded`: to one of its two neighbours, the nearer one more often."""
    bits = exact.view(torch.int32)
    noise = torch.randint(0, 1 << _DROPPED_BITS, bits.shape, dtype=torch.int32, device=bits.device)
    rounded.copy_(noise.add_(bits).bitwise_and_(-1 << _DROPPED_BITS).view(torch.float32))


class StochasticRoundingAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW's rule (Loshchilov and Hutter 2019) in float32, stored in bfloat16, moments included.

    Rounded to nearest, an update smaller than 1/256 of its weight is lost each time; rounded up or down at random it
    survives on average (Gupta et al. 2015, arXiv:1502.02551; for fine-tuning in bf16, Zamirai et al. 2020,
    arXiv:2010.06192). Weights, gradients and both moments take 8 bytes a parameter instead of 16.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        count = float(state["step"])
        beta1, beta2 = group["betas"]
        gradient = weight.grad.float()  # type: ignore[union-attr]
        exact = weight.float()
        mean = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        round_stochastically(mean, state["exp_avg"])
        round_stochastically(square, state["exp_avg_sq"])
        exact.mul_(1 - group["lr"] * group["weight_decay"])
        scale = square.sqrt_().div_(math.sqrt(1 - beta2**count)).add_(group["eps"])
        exact.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**count))
        round_stochastically(exact, weight)
