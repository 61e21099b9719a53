"""Model soups: weights of several trainings averaged into one model, chosen by the validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tmsearch.evaluation.scores import Scores

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Ingredient:
    """Trained weights that may be averaged, by the names of a model's trained parameters."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class SoupCandidate:
    """Weights that may become the final model, and their scores on the validation split."""

    name: str
    weights: Weights
    scores: Scores


def mean(models: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """The mean of equal-shaped weights, summed in float64: their order does not matter."""
    averaged = {}
    for name, first in models[0].items():
        total = torch.zeros_like(first, dtype=torch.float64)
        for weights in models:
            total += weights[name].double()
        averaged[name] = (total / len(models)).to(first.dtype)
    return averaged


def fitting(ingredients: Sequence[Ingredient], like: Weights) -> list[Ingredient]:
    """Those that train the same parameters as `like`: others cannot be averaged with it."""
    shapes = _shapes(like)
    return [ingredient for ingredient in ingredients if _shapes(ingredient.weights) == shapes]


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def uniform(ingredients: Sequence[Ingredient], score: Callable[[Weights], Scores]) -> SoupCandidate:
    """The average of all ingredients."""
    merged = mean([ingredient.weights for ingredient in ingredients])
    return SoupCandidate(f"uniform soup of {len(ingredients)}", merged, score(merged))


def greedy(
    ingredients: Sequence[Ingredient], score: Callable[[Weights], Scores], objective: str = "wer"
) -> SoupCandidate:
    """Ingredients are tried in order of their rate; each stays where the average's does not rise.

    Wortsman et al. 2022, arXiv:2203.05482, recipe 1, by what the search minimised.
    """
    alone = [(score(ingredient.weights), ingredient) for ingredient in ingredients]
    alone.sort(key=lambda scored: scored[0].rate(objective))
    scores, first = alone[0]
    chosen = [first]
    for _, ingredient in alone[1:]:
        tried = [*chosen, ingredient]
        tried_scores = score(mean([member.weights for member in tried]))
        if tried_scores.rate(objective) <= scores.rate(objective):
            scores = tried_scores
            chosen = tried
    name = f"greedy soup of {len(chosen)} in {len(ingredients)}"
    return SoupCandidate(name, mean([member.weights for member in chosen]), scores)


def best(candidates: Sequence[SoupCandidate], objective: str = "wer") -> SoupCandidate:
    """The candidate of the lowest rate; the first of equals, so that nothing is averaged without a gain."""
    return min(candidates, key=lambda candidate: candidate.scores.rate(objective))
