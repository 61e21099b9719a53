"""Weights of several trainings as one model: averages, kept only where the validation split says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tmsearch.evaluation.scores import Scores

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Ingredient:
    """Trained weights that may be merged, by the names of a model's trained parameters."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class SoupCandidate:
    """One way to have the final model, and how it does on the validation split."""

    name: str
    weights: Weights
    scores: Scores


def mean(several: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """The mean of equal-shaped weights, summed in float64: the order does not count."""
    names = list(several[0])
    return {
        name: (sum(one[name].double() for one in several) / len(several)).to(several[0][name].dtype)  # type: ignore[union-attr]
        for name in names
    }


def fitting(ingredients: Sequence[Ingredient], like: Weights) -> list[Ingredient]:
    """Those that train the same parameters as `like`: others cannot be averaged with it."""
    shapes = {name: weight.shape for name, weight in like.items()}
    return [one for one in ingredients if {name: weight.shape for name, weight in one.weights.items()} == shapes]


def uniform(ingredients: Sequence[Ingredient], score: Callable[[Weights], Scores]) -> SoupCandidate:
    """All of them averaged."""
    merged = mean([one.weights for one in ingredients])
    return SoupCandidate(f"uniform soup of {len(ingredients)}", merged, score(merged))


def greedy(ingredients: Sequence[Ingredient], score: Callable[[Weights], Scores]) -> SoupCandidate:
    """From the best on, one after the other is stirred in and stays where the average gets no worse.

    Wortsman et al. 2022, arXiv:2203.05482, recipe 1, by WER.
    """
    scored = [(score(one.weights), place) for place, one in enumerate(ingredients)]
    alone = sorted(scored, key=lambda one: (one[0].wer, one[1]))
    scores, chosen = alone[0][0], [ingredients[alone[0][1]]]
    for _, place in alone[1:]:
        tried = mean([*(one.weights for one in chosen), ingredients[place].weights])
        found = score(tried)
        if found.wer <= scores.wer:
            scores, chosen = found, [*chosen, ingredients[place]]
    name = f"greedy soup of {len(chosen)} in {len(ingredients)}"
    return SoupCandidate(name, mean([one.weights for one in chosen]), scores)


def best(candidates: Sequence[SoupCandidate]) -> SoupCandidate:
    """The lowest WER; the first of equals, so that nothing is merged for nothing."""
    return min(candidates, key=lambda one: one.scores.wer)
