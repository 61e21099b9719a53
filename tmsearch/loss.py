"""The training loss, label-smoothed cross-entropy over the tokens of a whole batch, and when it has run away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

IGNORED = -100  # label of a padded place, which no token has
# A training has diverged when the mean of its last losses is above both of these: three times the first loss, and
# the loss of guessing every token alike. One bad batch, or a rate that is merely too high, passes neither.
DIVERGED_MEAN_OF = 10
DIVERGED_TIMES = 3.0


class Diverged(Exception):
    """A loss that is not a number, infinite, or has run away: the step and the value."""


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, tokens: int, smoothing: float = 0.0) -> torch.Tensor:
    """The share of a batch's mean loss that these clips have, in nats a token.

    `logits` [clips, places, vocabulary]; `labels` [clips, places], IGNORED where padded; `tokens` is the number of
    labels in the whole batch, so that the shares of its micro-batches add up to the loss of the batch, whatever their
    lengths. `smoothing` is the mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    total = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    return total / tokens


class Losses:
    """The first loss of a training and its last few, to tell when it has diverged."""

    def __init__(self, vocabulary: int) -> None:
        self.guessing = math.log(vocabulary)  # nats a token, all tokens alike
        self.first: float | None = None
        self.last: list[float] = []

    def add(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes the loss of update `step`; raises Diverged."""
        if not math.isfinite(loss):
            raise Diverged(f"step {step}: the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise Diverged(f"step {step}: the gradient's norm is {grad_norm} at loss {loss:.3g}")
        if self.first is None:
            self.first = loss
        self.last = [*self.last[1 - DIVERGED_MEAN_OF :], loss]
        mean, limit = sum(self.last) / len(self.last), max(DIVERGED_TIMES * self.first, self.guessing)
        if len(self.last) == DIVERGED_MEAN_OF and mean > limit:
            raise Diverged(f"step {step}: the loss diverged, from {self.first:.3g} to a mean of {mean:.3g}")

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}

    def set_json(self, saved: Mapping[str, Any]) -> None:
        self.first, self.last = saved["first"], list(saved["last"])
