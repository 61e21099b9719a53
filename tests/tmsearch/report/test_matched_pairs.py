"""Which configurations make a pair, and how wide the interval of their mean difference is."""

import math
import random

import numpy as np
import pytest

from tmsearch.report import knob_charts, matched_pairs
from tmsearch.report.matched_pairs import MatchCandidate


def candidate(number, on, rate, errors, model="m", **more):
    return MatchCandidate(number, on, model, {"learning_rate": rate, **more}, errors)


def match(candidates, words):
    return matched_pairs.match_pairs("normalize_audio", ("true", "false"), candidates, words)


def test_pairs_are_near_and_of_one_model():
    words = [10] * 8
    similar = []
    for number, rate in enumerate([1e-8, 1e-7, 1e-6, 1e-5, 1e-4]):
        similar.append(candidate(2 * number, True, rate, [number] * 8))
        similar.append(candidate(2 * number + 1, False, 1.2 * rate, [number + 1] * 8))
    without_partner = [
        candidate(10, True, 1e-4, [9] * 8, model="other"),
        candidate(11, False, 1e-2, [9] * 8),  # too far from any
        candidate(12, True, 1e-4, [9] * 3),  # of other clips
    ]
    comparison = match([*similar, *without_partner], words)
    assert sorted((pair.first, pair.second) for pair in comparison.pairs) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert comparison.difference == pytest.approx(-0.1)
    assert comparison.low == pytest.approx(-0.1)
    assert comparison.unmatched == 3
    assert "factor" in comparison.method
    chart = knob_charts.pairs(comparison, "WER")
    mean, points = sorted(chart["data"], key=lambda trace: len(trace["x"]))
    assert mean["x"] == [comparison.difference]
    assert sorted(points["y"]) == ["0 against 1", "2 against 3", "4 against 5", "6 against 7", "8 against 9"]
    assert points["x"] == pytest.approx([-0.1] * 5)
    assert match(similar[2:], words) is None, "four pairs say nothing"
    assert match([candidate(0, True, 1e-4, [1] * 8)], words) is None


def test_an_interval_over_pairs_is_wider_than_one_over_clips():
    words = [10] * 30
    apart = [
        candidate(2 * n + side, bool(side), 1e-4 * 10**n, [3 + (n if side else 0)] * 30)
        for n in range(5)
        for side in (0, 1)
    ]
    comparison = match(apart, words)
    assert all(pair.low == pytest.approx(pair.high) for pair in comparison.pairs)
    assert comparison.low < comparison.difference < comparison.high
    assert comparison.difference == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("knob", "values"),
    [
        ("batch_size", (8, 16)),
        ("weight_decay", (0.01, 0.1)),
        ("label_smoothing", (0.0, 0.1)),
        ("schedule", ("linear", "cosine")),
        ("freeze_encoder", (True, False)),
    ],
)
def test_no_verdict_where_another_knob_differs_twofold(knob, values):
    words = [10] * 8
    alike, apart = [], []
    for number in range(6):
        on = candidate(2 * number, True, 1e-4, [3] * 8, **{knob: values[0]})
        alike += [on, candidate(2 * number + 1, False, 1e-4, [1] * 8, **{knob: values[0]})]
        apart += [on, candidate(2 * number + 1, False, 1e-4, [1] * 8, **{knob: values[1]})]
    assert len(match(alike, words).pairs) == 6
    assert match(apart, words) is None
    rates_apart = [candidate(n, bool(n % 2), 1e-4 * (1 + n % 2), [3] * 8) for n in range(12)]
    assert match(rates_apart, words) is None, "learning rates that differ twofold"


def test_distances_of_all_pairs_are_those_of_each():
    names = ["learning_rate", "dropout", "schedule", "warmup_steps", "frozen"]
    values = [(1e-5, 1.5e-5, 4e-5), (0.0, 0.1, 0.15), ("linear", "cosine"), (0, 10, 15), (True, 1, None)]
    sides = []
    for side in (0, 1):
        chance = random.Random(side)
        sides.append(
            [
                MatchCandidate(
                    number,
                    bool(side),
                    "m",
                    {
                        name: chance.choice(choices)
                        for name, choices in zip(names, values, strict=True)
                        if chance.random() < 0.9
                    },
                    [1],
                )
                for number in range(12)
            ]
        )
    ranges = {"dropout": 0.15, "warmup_steps": 15.0}

    def distance(first, second):
        total = 0.0
        for name, value in first.knobs.items():
            partner_value = second.knobs.get(name)
            factor = matched_pairs._factor(value, partner_value)
            if factor >= matched_pairs.MAX_FACTOR:
                total += matched_pairs._NO_PAIR
            elif name == "learning_rate":
                total += math.log(factor, 2)
            elif name in ranges:
                total += abs(value - partner_value) / ranges[name]
        return total

    expected = [[distance(first, second) for second in sides[1]] for first in sides[0]]
    assert matched_pairs._distances(*sides, ranges) == pytest.approx(np.array(expected), rel=1e-12)
