"""Scrambled Halton points, one at a time: scipy.stats has them too, and takes 44 MB of a supervisor for it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def point(dimensions: int, number: int, seed: int) -> NDArray[np.float64]:
    """[dimensions]: point `number` (from 0) of the seed's own sequence in the unit cube, as scipy.stats.qmc.Halton's.

    Every digit of the radical inverse is permuted by a permutation of its own (Owen, arXiv:1706.02808, algorithm 1).
    """
    random = np.random.default_rng(seed).spawn(1)[0]  # as scipy takes it
    return np.array([_radical_inverse(number, base, random) for base in _primes(dimensions)])


def _radical_inverse(number: int, base: int, random: np.random.Generator) -> float:
    """`number` with its digits in `base`, permuted, behind the point: as many as a float of 54 bits tells apart."""
    value, place, left = 0.0, 1.0, number
    for _ in range(math.ceil(54 / math.log2(base)) - 1):
        digits = np.arange(base)
        random.shuffle(digits)
        left, digit = divmod(left, base)
        place /= base
        value += float(digits[digit]) * place
    return value


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found
