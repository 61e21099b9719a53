"""The paired test of two trials' errors clip by clip."""

import math

import pytest

from search.schedulers.paired_test import paired_z


def test_paired_differences_count_in_standard_errors():
    assert paired_z([1, 0, 2], [1, 0, 2]) == 0.0
    assert paired_z([1, 0, 2], [2, 1, 3]) == math.inf
    # Differences 1, 0, 0, 1: mean .5, deviation .577, four clips.
    assert paired_z([0, 0, 0, 0], [1, 0, 0, 1]) == pytest.approx(0.5 / (0.57735 / 2), rel=1e-4)
    assert paired_z([1, 0, 0, 1], [0, 0, 0, 0]) < -1.7
