"""When a training's loss has run away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# A training has diverged when the mean of its last losses is above both of these: three times the first loss, and
# the loss of guessing every token alike. One bad batch, or a rate that is merely too high, passes neither.
DIVERGED_MEAN_OF = 10
DIVERGED_TIMES = 3.0


class DivergenceError(Exception):
    """A loss that is not a number, infinite, or has run away: the step and the value."""


class DivergenceMonitor:
    """The first loss of a training and its last few, to tell when it has diverged."""

    def __init__(self, vocabulary: int) -> None:
        self.guessing = math.log(vocabulary)  # nats a token, all tokens alike
        self.first: float | None = None
        self.last: list[float] = []

    def add(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes the loss of update `step`; raises Diverged."""
        if not math.isfinite(loss):
            raise DivergenceError(f"step {step}: the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise DivergenceError(f"step {step}: the gradient's norm is {grad_norm} at loss {loss:.3g}")
        if self.first is None:
            self.first = loss
        self.last = [*self.last[1 - DIVERGED_MEAN_OF :], loss]
        mean, limit = sum(self.last) / len(self.last), max(DIVERGED_TIMES * self.first, self.guessing)
        if len(self.last) == DIVERGED_MEAN_OF and mean > limit:
            raise DivergenceError(f"step {step}: the loss diverged, from {self.first:.3g} to a mean of {mean:.3g}")

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}

    def set_json(self, saved: Mapping[str, Any]) -> None:
        self.first, self.last = saved["first"], list(saved["last"])
