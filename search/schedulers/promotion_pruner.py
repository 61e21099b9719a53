"""The scheduler's promotions for plain Optuna: optuna.create_study(pruner=PromotionPruner(rungs=[100, 200, 400]))."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search.optuna_trials import sign, to_configuration
from search.schedulers.asha import POLICIES
from search.schedulers.scheduler import SchedulerConfig, SchedulerState, value_at


class PromotionPruner(BasePruner):
    """Asynchronous successive halving at rungs that are given, with the share that a space file's `eta` promotes.

    A trial goes on past a rung if it is among the best of those judged there: one in `eta`, two in three at the last
    rung before the end, and always the best one, unless its value is not finite. It is judged at its first report at
    or past a rung, and never between rungs. Optuna can't pause: a trial that is pruned stays pruned, however few
    better ones follow.

        study = optuna.create_study(pruner=PromotionPruner(rungs=[100, 200, 400, 800]))

    Args:
        rungs: rising steps, as Trial.report gives them; the last one is the full budget, where nothing is pruned.
        eta: one in so many goes on past a rung.

    Raises:
        ValueError: the rungs do not rise from at least 1, or there are fewer than two; eta is below 2.
    """

    def __init__(self, rungs: Sequence[int], eta: int = SchedulerConfig.eta) -> None:
        if len(rungs) < 2 or rungs[0] < 1 or any(later <= earlier for earlier, later in pairwise(rungs)):
            raise ValueError(f"rungs={list(rungs)}: give two steps or more, rising, the first at least 1")
        if eta < 2:
            raise ValueError(f"eta={eta}: give 2 or more; one in eta goes on")
        self._config = SchedulerConfig(tuple(rungs), eta=eta)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a trial ends after its last report.

        Raises:
            ValueError: the study has several objectives.
        """
        direction = sign(study, type(self).__name__)
        rung = self._reached(trial)
        if rung is None:
            return False
        history = []
        for other in study.get_trials(deepcopy=False):
            judged = trial if other.number == trial.number else other
            history.append(to_configuration(judged, self._curve(judged, direction)))
        state = SchedulerState(self._config, history, total=len(history))
        ranked = state.ranked_at(rung)
        share = POLICIES["halving"].share
        assert share is not None
        promoted = ranked[: max(1, share(state, rung, len(ranked)))]
        return not any(other.number == trial.number and math.isfinite(value_at(other, rung)) for other in promoted)

    def _reached(self, trial: FrozenTrial) -> int | None:
        """The rung that the last report was the first to reach; None where there is none, and at the full budget."""
        steps = sorted(trial.intermediate_values)
        if not steps or steps[-1] >= self._config.last_rung:
            return None
        before = steps[-2] if len(steps) > 1 else 0
        return max((rung for rung in self._config.rungs if before < rung <= steps[-1]), default=None)

    def _curve(self, trial: FrozenTrial, direction: float) -> dict[int, float]:
        """The trial's value at each rung that it reached, lower is better: of its first report there or past it."""
        reports = sorted(trial.intermediate_values.items())
        curve = {}
        for rung in self._config.rungs:
            past = (value for step, value in reports if step >= rung)
            value = next(past, None)
            if value is not None:
                curve[rung] = direction * value
        return curve
