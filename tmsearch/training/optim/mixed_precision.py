"""AdamW that reads bfloat16 gradients and writes each weight's cast beside it, one kernel a weight.

Weights and moments are float32, as torch's own AdamW has them (mixed-precision training, Micikevicius et al. 2018,
arXiv:1710.03740). The gradient of a product is bfloat16 when it is made: it is read as it is, scaled by the clip on
the way, and the weight's next cast is written in the same pass. So 30 bytes a parameter are moved, those of the norm
among them, where casting, clipping and AdamW apart move 52 (as tests/bench/gpu_model.py plays them), and gradients
take half of the memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.kernels.weights import TrainedPart

_CLIP_EPSILON = 1e-6  # nn.utils.clip_grad_norm_'s, against a norm of 0
_log = logging.getLogger(__name__)


class MixedPrecisionAdamW(torch.optim.AdamW):
    """torch's fused AdamW, whose products' weights take a kernel each that reads their gradients from `products`.

    The kernel needs a compiler for the weights' device. Where it does not compile, their gradients are cast and torch's
    fused kernel takes them too.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        products: FusedKernels,
    ) -> None:
        super().__init__(list(groups), lr=lr, betas=betas, eps=eps, fused=True)
        self._products = products
        self._kernel: Callable[..., None] | None = compiled_update()
        self._scale: torch.Tensor | None = None  # [], that the products' gradients are still to be multiplied by

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._products.drop_gradients()
        self._scale = None

    @torch.no_grad()
    def clip(self, most: float) -> torch.Tensor:
        """Scales all gradients so that their norm is at most `most`, as nn.utils.clip_grad_norm_; returns the norm [].

        Those of products are scaled when they are read.
        """
        others = [weight.grad for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        of_products = [weight.gradient for weight in self._products.weights.values() if weight.gradient is not None]
        norms: list[torch.Tensor] = []
        for gradients in (others, of_products):
            if gradients:
                norms += torch._foreach_norm(gradients, 2, torch.float32)
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        self._scale = (most / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        if others:
            torch._foreach_mul_(others, self._scale)
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        parts: dict[int, TrainedPart] = {}  # by the id of their weight
        for weight in self._products.weights.values():
            parts.update({id(part.weight): part for part in weight.trained_parts()})
        with any_lengths():
            for group in self.param_groups:
                self._update_products(group, [parts[id(weight)] for weight in group["params"] if id(weight) in parts])
        super().step()
        if self._kernel is not None:
            self._products.note_updated([cast for cast in self._products.weights.values() if cast.gradient is not None])

    def _update_products(self, group: dict[str, Any], parts: Sequence[TrainedPart]) -> None:
        """Updates the products' weights of a group, or leaves their gradients to torch's AdamW."""
        factors: dict[int, list[torch.Tensor]] = {}  # by the number of updates that a weight will have had
        for part in parts:
            if self._kernel is not None:
                state = self._state(part.weight)
                count = int(state["step"]) + 1
                if count not in factors:
                    factors[count] = update_factors(group, count)
                self._update(part, state, factors[count])
            if self._kernel is None:
                self._hand_over(part)

    def _state(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """A weight's moments, and the number of its updates on the host, where the kernel's factors are computed."""
        state: dict[str, torch.Tensor] = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        elif state["step"].device.type != "cpu":  # from a checkpoint: once for each
            state["step"] = state["step"].cpu()
        return state

    def _update(self, part: TrainedPart, state: dict[str, torch.Tensor], factors: Sequence[torch.Tensor]) -> None:
        """By the compiled kernel, or not at all where it does not compile."""
        assert self._kernel is not None
        stored = (part.weight.detach(), part.cast, part.gradient, state["exp_avg"], state["exp_avg_sq"])
        scale = self._scale if self._scale is not None else part.weight.new_ones(())
        try:
            self._kernel(*(alone(tensor.view(-1)) for tensor in stored), scale, *factors)
        except torch._dynamo.exc.TorchDynamoException as error:  # before anything was changed
            _log.warning("the optimizer's kernel could not be compiled (%s); going on without", str(error)[:200])
            self._kernel = None
            return
        state["step"] += 1

    def _hand_over(self, part: TrainedPart) -> None:
        """Gives torch's AdamW what it needs for a weight."""
        part.weight.grad = part.gradient.float()
        if self._scale is not None:
            part.weight.grad.mul_(self._scale)
        state = self.state[part.weight]
        if "step" in state:
            state["step"] = state["step"].to(part.weight.device)


def update(
    weight: torch.Tensor,
    weight_cast: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    scale: torch.Tensor,
    beta1: torch.Tensor,
    beta2: torch.Tensor,
    epsilon: torch.Tensor,
    kept: torch.Tensor,
    rate: torch.Tensor,
    root: torch.Tensor,
) -> None:
    """One AdamW update (Loshchilov and Hutter 2019, algorithm 2) of one weight, to be compiled into one kernel.

    Args:
        weight: float32 [count], as are the moments mean and square; these three and the cast are changed.
        weight_cast: The same weight in the products' format, [count].
        gradient: [count], bfloat16 or float32.
        mean: See weight.
        square: See weight.
        scale: What the gradient is multiplied by, [] on the weight's device.
        beta1: Numbers [] on the CPU from here on, since a Python number that changes would be compiled in anew.
        beta2: See AdamW.
        epsilon: See AdamW.
        kept: The share of the weight that its decay leaves.
        rate: The learning rate over the first moment's bias.
        root: The square root of the second moment's bias.
    """
    slope = gradient.float() * scale
    new_mean = mean * beta1 + slope * (1 - beta1)
    new_square = square * beta2 + slope * slope * (1 - beta2)
    new_weight = weight * kept - rate * new_mean / (new_square.sqrt() / root + epsilon)
    mean.copy_(new_mean)
    square.copy_(new_square)
    weight.copy_(new_weight)
    weight_cast.copy_(new_weight)


def any_lengths() -> contextlib.AbstractContextManager[None]:
    """In which a graph is compiled for any lengths: two that happen to be equal, as a weight's and its offset among
    others, are not taken to be so for good."""
    patched: contextlib.AbstractContextManager[None] = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
    return patched


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers without the tensor that they are a part of, for whose shape a graph would be compiled anew."""
    return tensor.detach()


def compiled_update() -> Callable[..., None]:
    """`update` as one kernel for weights of any length."""
    kernel: Callable[..., None] = torch.compile(update, dynamic=True)
    return kernel


def update_factors(group: dict[str, Any], count: int) -> list[torch.Tensor]:
    """The numbers that an update's kernel takes last, for update `count` of a group's weights, counted from 1."""
    beta1, beta2 = group["betas"]
    numbers = (
        beta1,
        beta2,
        group["eps"],
        1 - group["lr"] * group["weight_decay"],
        group["lr"] / (1 - beta1**count),
        math.sqrt(1 - beta2**count),
    )
    return [torch.tensor(number, dtype=torch.float32) for number in numbers]
