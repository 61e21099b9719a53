"""How much audio must be heard for a clip to be heard whole."""

from __future__ import annotations

import math

# Silence that stays whole behind a clip, so that its last word is never at the edge of what is heard, seconds.
MARGIN = 0.2
# A study's longest context is rounded up to this: one clip more or less seldom changes it.
ROUND_TO = 0.5


def context_needed(longest: float) -> float:
    """Seconds of context for clips of up to `longest` seconds."""
    return math.ceil((longest + MARGIN) / ROUND_TO) * ROUND_TO
