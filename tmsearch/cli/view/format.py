"""Values of a study as text on a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.imported import without_imported
from search.records import Configuration, measure_name
from search.schedulers import eta
from search.schedulers.eta import TimeLeft, rung_summaries
from search.space.budget import Budget
from search.study import Summary
from tmsearch.config import TrainConfig
from tmsearch.evaluation.scores import NEAR_SECONDS
from tmsearch.formatting import clock_time, duration_range, estimated_duration


def short_value(value: Any) -> str:
    """A knob's value: a model without its owner or folder, a number with three digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rpartition("/")[2]
    return str(value)


def model_of(trial: Configuration) -> str:
    """The checkpoint that a configuration trains."""
    return str((trial.params or {}).get("model", TrainConfig.model))


def searched_knobs(space: Mapping[str, Any], params: Mapping[str, Any] | None) -> str:
    """The searched knobs of a configuration on one line."""
    if params is None:
        return "not sampled yet"
    names = list(space["search"])
    for name in ("seed", "fold"):  # the trainings of a confirmation differ in them, though they are not searched
        if name not in space["search"] and name not in space["train"]:
            names.append(name)
    return " ".join(f"{name}={short_value(params[name])}" for name in names if name in params)


def rungs(summary: Summary, best: bool = False) -> str:
    """How many configurations reached each rung, `rungs 20: 8  40: 3  80: 1`; with `best` also the best WER there."""
    budget = Budget.from_json(summary.record.space["budget"], summary.record.name)
    parts: list[str] = []
    for step, rung in zip(budget.rungs, rung_summaries(budget.scheduler_config, summary.history), strict=True):
        part = f"{step}: {rung.reached}"
        if best and rung.best is not None:
            unit = "" if parts else f"best {summary.record.measure} "
            part += f" ({unit}{rung.best:.3f})"
        parts.append(part)
    return f"rungs {'  '.join(parts)}"


def time_left(summary: Summary, workers: int) -> TimeLeft | None:
    """Wall-clock seconds until the study's end with so many workers; None before there is a result."""
    scheduler_config = Budget.from_json(summary.record.space["budget"], summary.record.name).scheduler_config
    return eta.time_left(scheduler_config, summary.history, summary.record.trials, workers, model_of)


def left_text(left: TimeLeft) -> str:
    """How long it takes and within which range, `about 12 min (8 to 20 min)`."""
    return f"{estimated_duration(left.seconds)} ({duration_range(left.low, left.high)})"


@dataclass(frozen=True)
class DollarsLeft:
    """What a study costs until its end, and the range that holds it four times in five."""

    dollars: float
    low: float
    high: float


@dataclass(frozen=True)
class Spending:
    """What a study took, and what is left with those who work on it, or with one worker.

    Attributes:
        seconds_spent: of training and evaluation.
        seconds_left: on the clock; None: it has ended, or nothing is known yet.
        dollars_spent: None: no price was given.
        dollars_left: of all workers; None: likewise.
    """

    seconds_spent: float
    seconds_left: TimeLeft | None
    dollars_spent: float | None
    dollars_left: DollarsLeft | None


def spending_of(summary: Summary, price: float | None) -> Spending:
    """What a study took and still takes, in dollars, too, at `price` an hour of a worker."""
    workers = max(1, sum(worker.alive for worker in summary.workers))
    left = None if summary.has_ended else time_left(summary, workers)
    if price is None:
        return Spending(summary.spent, left, None, None)
    rate = price / 3600
    cost_left = None
    if left is not None:
        cost_left = DollarsLeft(*(seconds * workers * rate for seconds in (left.seconds, left.low, left.high)))
    return Spending(summary.spent, left, summary.spent * rate, cost_left)


def dollars(seconds: float, price: float) -> str:
    """What so long costs at `price` dollars an hour."""
    return f"about {seconds / 3600 * price:.2f} dollars"


def dollars_left(left: TimeLeft, workers: int, price: float) -> str:
    """What so many workers cost until the end, `about 8.10 dollars (5.20 to 13.30)`."""
    low, high = (seconds * workers / 3600 * price for seconds in (left.low, left.high))
    return f"{dollars(left.seconds * workers, price)} ({low:.2f} to {high:.2f})"


def numbers_in_words(history: Sequence[Configuration]) -> str:
    """Which numbers a study's configurations have, `0 to 7`."""
    return f"0 to {len(history) - 1}" if history else "none"


def counts_line(summary: Summary) -> str:
    """How many configurations there are in which state, `8 configurations: 8 finished; 1 imported beside them`."""
    count = len(without_imported(summary.history))
    return f"{count} configuration{'' if count == 1 else 's'}: {states_in_words(summary)}"


def states_in_words(summary: Summary) -> str:
    """How many configurations are in which state, `7 pruned, 1 finished; 3 imported beside them`."""
    imported_count = len(summary.history) - len(without_imported(summary.history))
    states = ", ".join(f"{number} {state}" for state, number in summary.counts.items()) or "none started"
    return states + (f"; {imported_count} imported beside them" if imported_count else "")


def judged_line(summary: Summary) -> str:
    """How far a study has come, `3 of 8 configurations have a result`."""
    return f"{summary.judged} of {summary.total} configurations have a result"


def cost_line(summary: Summary, price: float | None = None) -> str:
    """What a study cost, in dollars, too, at `price` an hour of a worker, and what early stopping saved."""
    money = "" if price is None else f", {dollars(summary.spent, price)} at {price:g} an hour"
    saved = f", {clock_time(summary.saved)} saved by early stopping" if summary.saved else ""
    return f"{clock_time(summary.spent)} of training and evaluation{money}{saved}"


def rates_beside(objective: str, metrics: Mapping[str, Any]) -> str:
    """The rates that are not minimised: WER and CER, and of long recordings where they were heard, with its edits."""
    rates = []
    for name in ("wer", "cer", "wer_long", "mean"):
        value = metrics.get(name)
        if name != objective and (value is not None or name in ("wer", "cer")):
            rates.append(f"{measure_name(name)} {'-' if value is None else format(value, '.3f')}")
    if metrics.get("wer_keep") is not None:
        rates.append(f"WER on data.keep {metrics['wer_keep']:.3f}")
    if metrics.get("wer_long") is not None:
        rates.append(_long_edits(metrics))
    return "  ".join(rates)


def _long_edits(metrics: Mapping[str, Any]) -> str:
    """What the long WER counts, and how near the times are."""
    return (
        f"(long: {metrics['long_insertions']} ins., {metrics['long_deletions']} del., "
        f"{metrics['long_substitutions']} sub. of {metrics['long_words']} words; "
        f"{metrics['long_near']:.0%} of times within {NEAR_SECONDS:g} s)"
    )
