"""AdamW on bfloat16 weights: moments in bfloat16 too, every result rounded up or down at random.

Rounded to the nearest, an update smaller than 1/256 of its weight is lost each time; rounded at random it is kept on
average (Gupta et al. 2015, arXiv:1502.02551; for fine-tuning in bf16, Zamirai et al. 2020, arXiv:2010.06192).
Weights, gradients and both moments take 8 bytes a parameter instead of 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

_KEPT = 16  # low bits of a float32 that a bfloat16 lacks


def round_stochastically(exact: torch.Tensor, rounded: torch.Tensor) -> None:
    """Writes float32 `exact` into bfloat16 `rounded`: to one of its two neighbours, the nearer one more often."""
    bits = exact.view(torch.int32)
    noise = torch.randint(0, 1 << _KEPT, bits.shape, dtype=torch.int32, device=bits.device)
    rounded.copy_(noise.add_(bits).bitwise_and_(-1 << _KEPT).view(torch.float32))


class StochasticRoundingAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW's rule (Loshchilov and Hutter 2019) in float32, one parameter at a time, kept in bfloat16."""

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
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        count, (beta1, beta2) = float(state["step"]), group["betas"]
        gradient, exact = weight.grad.float(), weight.float()  # type: ignore[union-attr]
        mean = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        round_stochastically(mean, state["exp_avg"])
        round_stochastically(square, state["exp_avg_sq"])
        exact.mul_(1 - group["lr"] * group["weight_decay"])
        scale = square.sqrt_().div_(math.sqrt(1 - beta2**count)).add_(group["eps"])
        exact.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**count))
        round_stochastically(exact, weight)
