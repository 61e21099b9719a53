"""Two configurations on the same clips: is one of them better, or could it be chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.records import Configuration

# Two-sided 5 % of the normal distribution: differences beyond this many standard errors count as seen.
SURE = 1.96


def paired_z(one: Sequence[int], other: Sequence[int]) -> float:
    """How many standard errors the second has more errors than the first; the same clips, in the same order.

    The paired z statistic of errors by clip. Where the two never differ it is 0.
    """
    differences = [theirs - mine for mine, theirs in zip(one, other, strict=True)]
    count = len(differences)
    mean = math.fsum(differences) / count
    spread = math.fsum((each - mean) ** 2 for each in differences) / max(1, count - 1)
    if spread == 0.0:
        return 0.0 if mean == 0.0 else math.copysign(math.inf, mean)
    return mean / math.sqrt(spread / count)


def significantly_worse(leader: Configuration, other: Configuration, step: int) -> bool:
    """Whether `other` is seen to be worse than `leader` at `step`, by the errors that both made on each clip.

    Where a study does not record them, any difference counts.
    """
    mine, theirs = (one.errors(step) for one in (leader, other))
    if mine is None or theirs is None or len(mine) != len(theirs):
        return other.curve[step] > leader.curve[step]
    return paired_z(mine, theirs) > SURE
