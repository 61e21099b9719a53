"""How long a training process may be silent, by the pace of its own signs of life."""

from __future__ import annotations

import math
import time

# Between two signs of life: so many times the longest pause so far, and at least so many seconds.
PACE_FACTOR = 20
SHORTEST_SECONDS = 600.0
# Before the second sign there is no pace: a model of 3 GB may be on its way through a slow network.
FIRST_SECONDS = 3 * 3600.0


class Watchdog:
    """Watches one job of a training process, which shows signs of life at its steps and batches.

    Args:
        seconds: a fixed limit set by a person, 0 for none; None: the limit follows the pace.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._last_sign = time.monotonic()
        self._signs = 0
        self._longest_pause = 0.0  # seconds between two signs of life
        self._is_half_told = False

    def sign(self) -> None:
        """The process shows a sign of life."""
        now = time.monotonic()
        if self._signs:
            self._longest_pause = max(self._longest_pause, now - self._last_sign)
        self._signs += 1
        self._last_sign = now
        self._is_half_told = False

    @property
    def limit(self) -> float:
        """Seconds of silence after which the process counts as hung."""
        if self._seconds is not None:
            return self._seconds or math.inf
        if self._signs < 2:
            return FIRST_SECONDS
        return max(SHORTEST_SECONDS, PACE_FACTOR * self._longest_pause)

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last_sign

    def is_hung(self) -> bool:
        return self.silence > self.limit

    def warns(self) -> bool:
        """Whether half the limit has passed; True once for each silence."""
        if self._is_half_told or self.silence <= self.limit / 2:
            return False
        self._is_half_told = True
        return True


def minutes(seconds: float) -> str:
    """Seconds rounded for a sentence: `40 s`, `10 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
