"""Values as points of the unit cube, and back."""

import random

import numpy as np
import pytest

from search.space import encoding
from search.space.distributions import Choice, FloatRange, IntRange


def test_points_and_values_are_each_others_inverse():
    search = {
        "log": FloatRange(1e-6, 1e-2, log=True),
        "count": IntRange(0, 12, step=4),
        "kind": Choice((True, 1, "x")),
        "flat": FloatRange(2.0, 2.0),
    }
    rng = random.Random(0)
    generator = np.random.default_rng(0)
    for _ in range(50):
        drawn = encoding.from_unit_cube(search, np.array([rng.random() for _ in search]))
        assert drawn["count"] in (0, 4, 8, 12)
        again = encoding.from_unit_cube(search, encoding.to_unit_cube(search, drawn, generator))
        assert again == {**drawn, "log": pytest.approx(drawn["log"])}
    first, second = (encoding.features(search, {**drawn, "kind": kind}) for kind in (True, 1))
    assert ((first - second) ** 2).sum() == pytest.approx(1.0)
