"""How far a study has come, rung by rung, and how many seconds are left until it ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from search.imported import without_imported
from search.records import Configuration
from search.schedulers.asha import ALL_POLICIES, tied_with_leader
from search.schedulers.scheduler import SchedulerConfig, SchedulerState

# Halving trains up to `max_full` trials in full that were beyond their rung's share. Each of them costs about this part
# of a full training (recorded tables of the demo and tiny.en, 8 to 64 trials, rungs that double).
_FINISH_SHARE = 0.75


@dataclass(frozen=True)
class RungSummary:
    """One rung: how many trials have a value there, and the best one."""

    reached: int
    best: float | None


def rung_summaries(config: SchedulerConfig, history: Sequence[Configuration]) -> list[RungSummary]:
    """A summary of every rung, in rising order; imported trainings do not count."""
    trials = without_imported(history)
    summaries = []
    for rung in config.rungs:
        values = [trial.curve[rung] for trial in trials if rung in trial.curve]
        best = min(filter(math.isfinite, values), default=None)
        summaries.append(RungSummary(len(values), best))
    return summaries


def seconds_left(
    config: SchedulerConfig, history: Sequence[Configuration], total: int, workers: int = 1
) -> float | None:
    """Estimated seconds on the clock until `workers` have brought a study of `total` trials to its end.

    The full-training equivalents that are still to be trained, times the mean cost of one so far, training and
    evaluation. None before the first result; 0 when the study has ended.
    """
    trials = without_imported(history)
    full_cost = _full_training_seconds(config, trials)
    if full_cost is None:
        return None
    if len(trials) >= total and all(trial.ended for trial in trials):
        return 0.0
    state = SchedulerState(config, trials, max(total, len(trials)))
    spent = 0
    running = 0
    for trial in trials:
        step = _last_step(trial)
        spent += step if trial.failure is None else 0
        running += trial.target - step if trial.state == "running" else 0
    beyond_shares = spent / config.last_rung - _shared_equivalents(state)
    parallel = max(-beyond_shares, running / config.last_rung)
    # One worker trains one trial at a time, and in the finish each trial waits for the result of the one before.
    longest = min(parallel, 1 - config.rungs[0] / config.last_rung)
    serial = _finish_equivalents(state, beyond_shares)
    return full_cost * (max(parallel / max(1, workers), longest) + serial)


def _last_step(trial: Configuration) -> int:
    """The step that it has reached, by its running segment's progress."""
    if trial.state != "running":
        return trial.steps
    return min(trial.target, max(trial.steps, int(trial.progress.get("step") or 0)))


def _full_training_seconds(config: SchedulerConfig, trials: Sequence[Configuration]) -> float | None:
    """The mean cost of a training to the last rung, its evaluations included; None before the first result."""
    trained = [trial for trial in trials if trial.steps]
    if not trained:
        return None
    step_seconds = 0.0
    evaluation_seconds = 0.0
    for trial in trained:
        # What was trained again for want of a checkpoint will be needed of the others, too.
        step_seconds += (trial.total("train_seconds") + trial.total("repeated_seconds")) / trial.steps
        evaluation_seconds += trial.total("eval_seconds") / len(trial.rungs)
    return (step_seconds * config.last_rung + evaluation_seconds * len(config.rungs)) / len(trained)


def _shared_equivalents(state: SchedulerState) -> float:
    """Full trainings that the whole study takes if each rung's share of trials goes on, failed trials left out."""
    policy = ALL_POLICIES[state.config.strategy]
    last = state.config.last_rung
    count = state.total - sum(trial.failure is not None for trial in state.history)
    if policy.share is None:
        ended = [trial.steps for trial in state.history if trial.ended and trial.failure is None]
        return count * statistics.fmean(ended or [last]) / last
    steps = 0
    start = 0
    for rung in state.config.rungs:
        steps += count * (rung - start)
        count = max(1, policy.share(state, rung, count))
        start = rung
    return steps / last


def _finish_equivalents(state: SchedulerState, beyond_shares: float) -> float:
    """Full trainings that halving's finish still takes, of which `beyond_shares` were trained already."""
    last = state.config.last_rung
    if state.config.strategy != "halving":
        return 0.0
    if state.is_full and any(last in trial.curve for trial in state.history):
        return sum(last - trial.steps for trial in tied_with_leader(state)) / last
    return max(0.0, _FINISH_SHARE * state.config.max_full - max(0.0, beyond_shares))
