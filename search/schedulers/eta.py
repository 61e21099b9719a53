"""How far a study has come, rung by rung, and how many seconds are left until it ends."""

from __future__ import annotations

import dataclasses
import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.imported import without_imported
from search.records import Configuration, Rung
from search.schedulers.asha import ALL_POLICIES, tied_with_leader
from search.schedulers.scheduler import SchedulerConfig, SchedulerState
from search.schedulers.training_cost import KindOf, TrainingCosts

# Halving trains up to `max_full` trials in full that were beyond their rung's share. Each of them costs about this part
# of a full training (recorded tables of the demo and tiny.en, 8 to 64 trials, rungs that double).
_FINISH_SHARE = 0.75
# Deviations of an estimate, so that its range holds four ends of recorded studies in five (studies/README.md,
# 2026-11-29): as a share of it after one trial, less the more are seen; as a share of it in any case; and so many
# trainings more or fewer, for the square root of those that are to come.
_FEW_SEEN = 0.2
_MODEL_ERROR = 0.1
_TRAININGS_MORE = 0.5
# Standard deviations to either side. A plan is not spent where nothing can win any more: the end may come early.
_LOW = 1.6
_HIGH = 1.28
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RungSummary:
    """One rung: how many trials have a value there, and the best one."""

    reached: int
    best: float | None


@dataclass(frozen=True)
class TimeLeft:
    """Seconds on the clock until a study's end, and the range that holds it four times in five."""

    seconds: float
    low: float
    high: float

    def less(self, seconds: float) -> TimeLeft:
        """What is left `seconds` later."""
        return TimeLeft(*(max(0.0, value - seconds) for value in (self.seconds, self.low, self.high)))

    def until(self, deadline: float) -> TimeLeft:
        """What is left where the work ends in `deadline` seconds in any case."""
        return TimeLeft(*(min(value, max(0.0, deadline)) for value in (self.seconds, self.low, self.high)))


def rung_summaries(config: SchedulerConfig, history: Sequence[Configuration]) -> list[RungSummary]:
    """A summary of every rung, in rising order; imported trainings do not count."""
    trials = without_imported(history)
    summaries = []
    for rung in config.rungs:
        values = [trial.curve[rung] for trial in trials if rung in trial.curve]
        best = min(filter(math.isfinite, values), default=None)
        summaries.append(RungSummary(len(values), best))
    return summaries


def _one_kind(trial: Configuration) -> None:
    return None


def time_left(
    config: SchedulerConfig,
    history: Sequence[Configuration],
    total: int,
    workers: int = 1,
    kind_of: KindOf = _one_kind,
) -> TimeLeft | None:
    """How long `workers` take to bring a study of `total` trials to its end; None before the first result.

    The trainings that are still to come, by the plan where there is one, at what those so far have cost.
    """
    trials = without_imported(history)
    costs = TrainingCosts(config, trials, kind_of)
    if not costs.trained:
        return None
    if len(trials) >= total and all(trial.ended for trial in trials):
        return TimeLeft(0.0, 0.0, 0.0)
    state = SchedulerState(config, trials, max(total, len(trials)))
    ahead = _plan_ahead(state, costs, workers) if config.is_planned else _share_ahead(state, costs, workers)
    return _with_range(ahead, costs)


def _with_range(ahead: _Workers, costs: TrainingCosts) -> TimeLeft:
    """The range by how much trials differ in cost, by how little was seen so far, and by trainings more or fewer."""
    total = math.fsum(ahead.segments)
    if not total:
        return TimeLeft(0.0, 0.0, 0.0)
    variation = costs.variation
    longest = max(ahead.segments)
    long_segments = sum(seconds > longest / 2 for seconds in ahead.segments)
    variances = (
        math.fsum((variation * seconds) ** 2 for seconds in ahead.segments),
        (total * variation) ** 2 / len(costs.trained),
        (total * _FEW_SEEN) ** 2 / len(costs.trained),
        (total * _MODEL_ERROR) ** 2,
        (longest * _TRAININGS_MORE) ** 2 * long_segments,
    )
    deviation = math.sqrt(math.fsum(variances)) * ahead.end / total
    return TimeLeft(ahead.end, max(0.0, ahead.end - _LOW * deviation), ahead.end + _HIGH * deviation)


def trainings_in_time(
    config: SchedulerConfig, history: Sequence[Configuration], seconds: float, workers: int = 1
) -> float:
    """Trainings in full that `workers` will have spent, with what was spent so far, when `seconds` have passed.

    Infinite before the first result.
    """
    trials = without_imported(history)
    costs = TrainingCosts(config, trials, _one_kind)
    full_cost = costs.mean(0, config.last_rung) if costs.trained else 0.0
    if not full_cost:
        return math.inf
    return sum(map(_last_step, trials)) / config.last_rung + max(0.0, seconds) * workers / full_cost


def _last_step(trial: Configuration) -> int:
    """The step that it has reached, by its running segment's progress."""
    if trial.state != "running":
        return trial.steps
    return min(trial.target, max(trial.steps, int(trial.progress.get("step") or 0)))


@dataclass
class _Workers:
    """Segments given to whichever worker is free first, in the order in which they come."""

    count: int
    segments: list[float] = field(default_factory=list)  # seconds of each

    def __post_init__(self) -> None:
        self._free = [0.0] * max(1, self.count)

    def train(self, seconds: float) -> None:
        self.segments.append(seconds)
        heapq.heappush(self._free, heapq.heappop(self._free) + seconds)

    def wait_for_all(self) -> None:
        self._free = [self.end] * len(self._free)

    @property
    def end(self) -> float:
        return max(self._free)


def _plan_ahead(state: SchedulerState, costs: TrainingCosts, count: int) -> _Workers:
    """By the plan: what has begun, what the scheduler brings to its end of that, then the waves that are to begin."""
    from search.schedulers import planned  # numpy

    config = state.config
    last = config.last_rung
    workers = _Workers(count)
    for trial in state.history:
        if _is_begun(trial):
            workers.train(costs.of(trial, _last_step(trial), _end_of_begun(config, trial)))
    if planned.is_judging(state):
        workers.wait_for_all()  # a wave is judged before any of it goes on
    is_judging = planned.is_judging_last(state)
    expected = _with_begun_ended(state, is_judging)
    while (chosen := planned.promote(expected)) is not None:
        if planned.exceeds_plan(expected, chosen):
            workers.wait_for_all()  # nobody works beside what a study ends with
        workers.train(costs.of(chosen, chosen.steps, last))
        expected = _with_expected_end(expected, chosen)
    first_cost = costs.mean(0, config.rungs[0])
    other_cost = costs.mean(config.rungs[0], last)
    begun = len(state.history)
    total = max(config.affordable(state.total), begun)
    for wave in planned.waves_ahead(config, begun, total, planned.spent_trainings(expected), is_judging):
        for _ in range(wave.begins):
            workers.train(first_cost)
        workers.wait_for_all()
        for _ in range(wave.full):  # who goes on of a wave to come, nobody knows
            workers.train(other_cost)
    return workers


def _is_begun(trial: Configuration) -> bool:
    """Whether it is running, or the next that a free worker takes."""
    return trial.state in ("running", "queued") or (trial.state == "paused" and trial.unfinished)


def _end_of_begun(config: SchedulerConfig, trial: Configuration) -> int:
    """The step that a plan brings it to: what was judged and went on goes on to the end, and so does what was given."""
    is_promoted = bool(trial.rungs) or (trial.origin == "start" and trial.state == "running")
    return config.last_rung if is_promoted else trial.target or config.rungs[0]


def _with_begun_ended(state: SchedulerState, is_judging: bool) -> SchedulerState:
    """The state when what has begun is where the plan brings it; with `is_judging` what is not judged still runs.

    What is judged at the first rung meanwhile is taken to lose.
    """
    expected = state
    for trial in state.history:
        if not _is_begun(trial):
            continue
        end = _end_of_begun(state.config, trial)
        if end == state.config.last_rung:
            expected = _with_expected_end(expected, trial)
        elif is_judging:
            expected = _with_trial(expected, dataclasses.replace(trial, state="running", target=end))
        else:
            lost = dataclasses.replace(trial, state="failed", failure="diverged", rungs=(Rung(end, math.inf, {}),))
            expected = _with_trial(expected, lost)
    return expected


def _with_expected_end(state: SchedulerState, trial: Configuration) -> SchedulerState:
    """The state when the trial is trained in full, with the value that its curve tells, or else that of most others."""
    from search.schedulers.extrapolation import final_values  # numpy

    last = state.config.last_rung
    trained = [other for other in state.history if other.rungs and other.failure is None]
    finals = final_values(trained, last)[0].tolist()
    by_number = {other.number: final for other, final in zip(trained, finals, strict=True)}
    value = math.exp(by_number.get(trial.number, statistics.median(finals or [0.0])))
    rungs = (*trial.rungs, Rung(last, value, {}))
    return _with_trial(state, dataclasses.replace(trial, state="finished", rungs=rungs))


def _with_trial(state: SchedulerState, trial: Configuration) -> SchedulerState:
    history = [trial if other.number == trial.number else other for other in state.history]
    return dataclasses.replace(state, history=history)


def _share_ahead(state: SchedulerState, costs: TrainingCosts, count: int) -> _Workers:
    """By each rung's share of trials, if it goes on as the strategy has it."""
    config = state.config
    last = config.last_rung
    spent = 0
    running = 0
    for trial in state.history:
        step = _last_step(trial)
        spent += step if trial.failure is None else 0
        running += trial.target - step if trial.state == "running" else 0
    beyond_shares = spent / last - _shared_equivalents(state)
    parallel = max(-beyond_shares, running / last)
    workers = _Workers(count)
    full = costs.mean(0, last)
    # One worker trains one trial at a time, and in the finish each trial waits for the result of the one before.
    while parallel > _ROUNDING:
        part = min(parallel, 1.0 - config.rungs[0] / last)
        workers.train(part * full)
        parallel -= part
    workers.wait_for_all()
    workers.train(_finish_equivalents(state, beyond_shares) * full)
    return workers


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
