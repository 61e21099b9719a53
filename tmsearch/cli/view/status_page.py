"""The page about a study that `status` prints: its state, a line a configuration, what it cost, who works on it."""

from __future__ import annotations

from collections.abc import Sequence

from search import imported
from search.records import Configuration, code_versions
from search.samplers import repeats
from search.samplers.earlier import EarlierStudies
from search.space.errors import printable
from search.space.search_space import Space
from search.study import Summary
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import (
    cost_line,
    dollars_left,
    judged_line,
    left_text,
    rates_beside,
    rungs,
    short_value,
    states_in_words,
    time_left,
)
from tmsearch.cli.view.table import MOST_INTERVALS, table, truncate
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.trial.facts import StudyFacts

RESERVED_LINES = 4  # of a page: the table's head of two lines, a line on hidden rows, the cursor's line


def page_lines(summary: Summary, width: int, height: int | None = None, price: float | None = None) -> list[StyledLine]:
    """The page about a study.

    Args:
        summary: the study's.
        width: columns that no line may be longer than.
        height: lines that the page must fit in, for which it leaves out configurations; None: no limit.
        price: dollars an hour of each worker; None: no money is mentioned.
    """
    above = _lines_above(summary, width)
    below = _lines_below(summary, price)
    shown: Sequence[Configuration] = summary.history
    room = len(shown) if height is None else height - len(above) - len(below) - RESERVED_LINES
    if len(shown) > room:
        shown = _most_relevant(summary, max(1, room))
        below.insert(0, f"{len(summary.history) - len(shown)} more: `tmsearch status {summary.record.name}` lists all")
    page: list[StyledLine] = [[(truncate(line, width), "")] for line in above]
    page[0] = [(text, "bold") for text, _ in page[0]]
    if shown:
        status_table = table(summary, shown, width)
        page += status_table.head + status_table.rows
        if status_table.without_interval:
            below.insert(0, f"95 % of the {MOST_INTERVALS} best alone; `tmsearch show` and --json have the others'")
        if status_table.hidden:
            below.insert(0, f"no room for {', '.join(status_table.hidden)}: a wider terminal, or --json, has them")
    page += [[(truncate(line, width), "")] for line in below]
    return page


def _most_relevant(summary: Summary, room: int) -> list[Configuration]:
    """The best, those that run, and the latest of the others; in the order of their numbers."""
    best = summary.best.number if summary.best else None
    ranked = sorted(summary.history, key=lambda trial: (trial.number != best, trial.state != "running", -trial.number))
    return sorted(ranked[:room], key=lambda trial: trial.number)


def _lines_above(summary: Summary, width: int) -> list[str]:
    """How many configurations there are in which state, the baselines, and how many reached each rung."""
    record = summary.record
    study, states = f"study {record.name}: {judged_line(summary)}", states_in_words(summary)
    lines = [f"{study}: {states}"] if len(f"{study}: {states}") <= width else [study, f"  states: {states}"]
    facts = StudyFacts.from_json(summary.facts)
    for model, baseline in facts.baselines.items():
        interval = intervals.bracketed(intervals.baseline_interval(facts, model))
        rate = baseline.rate(record.objective)
        name = f"{printable(short_value(model))} untrained (zero-shot)"
        kept = f"; on data.keep WER {facts.kept[model]:.3f}" if model in facts.kept else ""
        lines.append(f"{name}: {record.measure} {rate:.3f}{interval}{kept}")
    earlier = EarlierStudies.of(summary.facts)
    if earlier is not None:
        lines.append(printable(earlier.line()))
    if summary.history:
        lines.append(rungs(summary, best=True))
    return lines


def _lines_below(summary: Summary, price: float | None) -> list[str]:
    """Costs, noise, workers, and remarks on how the results came about."""
    lines = [cost_line(summary, price)] if summary.history else []
    lines += noise_lines(summary)
    lines += _worker_lines(summary, price)
    repeated = repeats.remark(Space.from_json(dict(summary.record.space)).search, summary.history)
    if repeated:
        lines.append(repeated)
    versions = code_versions(summary.history)
    if len(versions) > 1:
        counts = ", ".join(f"{count} by {version}" for version, count in versions.items())
        lines.append(f"the code changed midway: {counts}")
    if summary.record.stop_reason:
        lines.append(f"stopped: {printable(summary.record.stop_reason)}")
    if summary.best:
        command = f"tmsearch show {summary.record.name} {summary.best.number}"
        lines.append(f"* the best so far; `{command}` tells more")
        rates, *long_edits = rates_beside(summary.record.objective, summary.best.metrics).split("  (")
        lines.append(f"beside it: {rates}")
        lines += [f"  ({edits}" for edits in long_edits]
    return lines


def _worker_lines(summary: Summary, price: float | None) -> list[str]:
    """The time left, then a line a worker."""
    workers = [worker for worker in summary.workers if worker.alive]
    lines = []
    left = None if summary.has_ended else time_left(summary, max(1, len(workers)))
    if left is not None and left.seconds:
        count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}" if workers else "one worker; none works now"
        lines.append(f"{left_text(left)} left with {count}")
        if price is not None:
            lines.append(f"  {dollars_left(left, max(1, len(workers)), price)}")
    trials = {trial.worker: f"trial {trial.number}" for trial in summary.history if trial.state == "running"}
    lines += [f"worker {worker.display_name}: {trials.get(worker.identity, 'idle')}" for worker in workers]
    return lines


def noise_lines(summary: Summary) -> list[str]:
    """What imported trainings of one recipe differ by; nothing where it is not known."""
    noise = imported.repeat_noise(summary.history)
    if noise is None:
        return []
    return [
        f"noise: {summary.record.measure}s of one recipe differ by {noise.deviation:.4f} (sd of {noise.runs} imported)"
    ]
