"""Hypotheses that repeat themselves without end: how they are known."""

from __future__ import annotations

from collections.abc import Sequence

# A hypothesis is a loop once its last tokens are a phrase of at most LOOP_PERIOD tokens, LOOP_TIMES over, LOOP_TOKENS
# in all. Nobody says so; a Whisper that began it goes on until it is cut.
LOOP_PERIOD, LOOP_TIMES, LOOP_TOKENS = 8, 4, 24


def loop_period(ids: Sequence[int]) -> int:
    """How many tokens long the phrase is in which `ids` end again and again; 0 where they do not."""
    for period in range(1, LOOP_PERIOD + 1):
        tail = ids[-max(LOOP_TOKENS, LOOP_TIMES * period) :]
        if len(tail) >= max(LOOP_TOKENS, LOOP_TIMES * period) and tail[period:] == tail[:-period]:
            return period
    return 0
