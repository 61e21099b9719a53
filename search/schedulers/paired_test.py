"""Two trials on the same clips: is one of them worse, or could the difference be chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.records import Configuration

# Two-sided 5 % of the normal distribution, in standard errors.
_SIGNIFICANT_Z = 1.96


def paired_z(first: Sequence[int], second: Sequence[int]) -> float:
    """By how many standard errors the second has more errors than the first; 0 if they never differ.

    The paired z statistic of errors by clip: the mean difference over its standard error. Both list the same clips in
    the same order.
    """
    differences = [errors - reference for reference, errors in zip(first, second, strict=True)]
    count = len(differences)
    mean = math.fsum(differences) / count
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / max(1, count - 1)
    if variance > 0.0:
        return mean / math.sqrt(variance / count)
    return 0.0 if mean == 0.0 else math.copysign(math.inf, mean)


def significantly_worse(leader: Configuration, trial: Configuration, step: int) -> bool:
    """Whether `trial` is significantly worse than `leader` at `step`, by the errors that both made on each clip.

    Where a study does not record errors by clip, any difference counts.
    """
    leader_errors = leader.errors(step)
    trial_errors = trial.errors(step)
    if leader_errors is None or trial_errors is None or len(leader_errors) != len(trial_errors):
        return trial.curve[step] > leader.curve[step]
    return paired_z(leader_errors, trial_errors) > _SIGNIFICANT_Z
