"""The average of a training's weights over about the last share of its steps, kept beside the weights.

Step i has weight i ** p in it, so that after any number of steps the average reaches back over the same share of them:
what a rung scores is what a whole training of that length would score, and no window begins or ends anywhere.
(Polynomial-decay averaging, Shamir and Zhang 2013, arXiv:1212.1824; the power-function EMA of Karras et al. 2024,
arXiv:2312.02696.)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from tmsearch.model.cost import AVERAGE_UPDATES


def is_update(step: int, share: float) -> bool:
    """Whether the weights after optimizer step `step`, counted from 1, enter the average."""
    return step % stride(step, share) == 0


def stride(step: int, share: float) -> int:
    """Steps from one update to the next around `step`, a power of two.

    An update of every step would move 12 bytes a parameter, 5 % of a step of large-v3; AVERAGE_UPDATES within the
    average's reach are as good.
    """
    return int(2 ** math.floor(math.log2(max(1.0, share * step / AVERAGE_UPDATES))))


def new_share(step: int, share: float) -> float:
    """The share of the average that the weights after step `step` get; 1 at the first update.

    `share` is that of the steps so far that a plain mean would be taken over to be as old as this average.
    """
    power = 2 / share - 2  # the mean age is steps / (power + 2), and that of a plain mean share * steps / 2
    return float(1 - (1 - stride(step, share) / step) ** (power + 1))


class WeightAverage:
    """The average of `weights` over about the last `share` of the optimizer steps so far.

    In float32 whatever the weights are in: an update moves it by a small part of a small difference, which is less than
    bfloat16 resolves and would be lost.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], share: float) -> None:
        self._weights = weights
        self._share = share
        self.values: dict[str, torch.Tensor] = {}  # float32, by the weights' names; empty before the first step

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights in as they are after optimizer step `step`; nothing waits for the device."""
        if not self.values:
            self.values = {name: weight.detach().to(torch.float32, copy=True) for name, weight in self._weights.items()}
            return
        if not is_update(step, self._share):
            return
        share = new_share(step, self._share)
        averages = list(self.values.values())
        weights = [weight.detach() for weight in self._weights.values()]
        if all(weight.dtype == torch.float32 for weight in weights):
            torch._foreach_lerp_(averages, weights, share)
            return
        for average, weight in zip(averages, weights, strict=True):  # one float32 copy at a time
            average.lerp_(weight.float(), share)

    @torch.no_grad()
    def restore(self, values: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `values` was, as a checkpoint has it. Raises ValueError where it is of other weights."""
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        if {name: value.shape for name, value in values.items()} != shapes:
            raise ValueError("its average is of other weights")
        self.values = {name: values[name].to(weight.device) for name, weight in self._weights.items()}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the weights, which are put back to the bit; before the first step nothing.

        The weights wait in memory of their own, as much as their gradients took that are gone by then. Tensors stay
        where they are: graphs and kernels that were made for them remain valid.
        """
        if not self.values:
            yield
            return
        trained = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._overwrite(self.values)
        try:
            yield
        finally:
            self._overwrite(trained)

    @torch.no_grad()
    def _overwrite(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
