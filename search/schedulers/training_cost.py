"""What the segments of a trial cost in seconds, by what was measured of it and of others of its kind."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from search.records import Configuration, Rung
from search.schedulers.scheduler import SchedulerConfig

# Trials of one kind take about as long a step: those that train the same model.
KindOf = Callable[[Configuration], Hashable]


class TrainingCosts:
    """Estimates of segments' seconds: training, what is trained again for want of a checkpoint, evaluation.

    A segment that others of the trial's kind were seen to run costs what it cost them; one that none has run costs what
    its steps did at the furthest rung that was seen, and an evaluation. A trial that took longer than its kind so far
    is taken to go on so.

    Args:
        config: of the study; segments end at its rungs.
        trials: those of the study, without imported ones.
        kind_of: tells trials apart that cost differently.
    """

    def __init__(self, config: SchedulerConfig, trials: Sequence[Configuration], kind_of: KindOf) -> None:
        self._rungs = config.rungs
        self._kind_of = kind_of
        self.trained = [trial for trial in trials if trial.rungs]
        results: dict[Hashable, list[_Result]] = defaultdict(list)
        for trial in self.trained:
            starts = (0, *(rung.step for rung in trial.rungs))
            for (start, _), rung in zip(pairwise(starts), trial.rungs, strict=True):
                results[kind_of(trial)].append(_Result(start, rung))
        self._segments = {kind: _segment_costs(config.rungs, of_kind) for kind, of_kind in results.items()}
        counts = Counter(kind_of(trial) for trial in self.trained)
        self._unseen = [
            sum(count * self._segments[kind][index] for kind, count in counts.items()) / len(self.trained)
            for index in range(len(config.rungs) if counts else 0)
        ]
        self._ratio = {trial.number: self._ratio_of(trial) for trial in self.trained}

    def of(self, trial: Configuration, first: int, last: int) -> float:
        """Seconds that `trial` takes from step `first` to step `last`; needs `trained`."""
        return self._ratio.get(trial.number, 1.0) * self._of_kind(self._kind_of(trial), first, last)

    def samples(self, first: int, last: int) -> list[float]:
        """Seconds that each of the `trained` takes from step `first` to step `last`: what another one may take."""
        return [self.of(trial, first, last) for trial in self.trained]

    def mean(self, first: int, last: int) -> float:
        """Seconds that a trial takes of which nothing is known."""
        return statistics.fmean(self.samples(first, last))

    @property
    def variation(self) -> float:
        """The standard deviation of trials' costs in full, as a share of their mean."""
        samples = self.samples(0, self._rungs[-1])
        return statistics.stdev(samples) / statistics.fmean(samples) if len(samples) > 1 and any(samples) else 0.0

    def _ratio_of(self, trial: Configuration) -> float:
        """How long the trial took, in what its kind takes."""
        expected = self._of_kind(self._kind_of(trial), 0, trial.steps)
        return trial.seconds / expected if expected > 0.0 else 1.0

    def _of_kind(self, kind: Hashable, first: int, last: int) -> float:
        """Seconds from one step to another, a part of a segment by its share of the steps."""
        seconds = 0.0
        start = 0
        for rung, cost in zip(self._rungs, self._segments.get(kind, self._unseen), strict=True):
            overlap = max(0, min(last, rung) - max(first, start))
            seconds += cost * overlap / (rung - start)
            start = rung
        return seconds


@dataclass(frozen=True)
class _Result:
    """What a rung was reached from, and the rung."""

    start: int
    rung: Rung

    @property
    def evaluation_seconds(self) -> float:
        return float(self.rung.metrics.get("eval_seconds") or 0.0)

    @property
    def seconds(self) -> float:
        training = sum(float(self.rung.metrics.get(name) or 0.0) for name in ("train_seconds", "repeated_seconds"))
        return training + self.evaluation_seconds

    @property
    def step_seconds(self) -> float:
        return (self.seconds - self.evaluation_seconds) / (self.rung.step - self.start)


def _segment_costs(rungs: Sequence[int], results: Sequence[_Result]) -> list[float]:
    """Seconds of the segment before each rung, of one kind of trials."""
    costs = []
    furthest = max(result.rung.step for result in results)
    last_rates = [result.step_seconds for result in results if result.rung.step == furthest]
    evaluation = statistics.fmean(result.evaluation_seconds for result in results)
    for start, step in pairwise((0, *rungs)):
        seen = [result.seconds for result in results if (result.start, result.rung.step) == (start, step)]
        costs.append(statistics.fmean(seen or [statistics.fmean(last_rates) * (step - start) + evaluation]))
    return costs
