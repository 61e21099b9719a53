"""The command status: a study as a table, once or watched."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from search import imported, study
from search.errors import UserError
from search.records import Configuration, code_versions
from search.space.errors import printable
from search.storage.database import open_storage
from search.study import Summary
from tmsearch.cli.commands.show import configuration_json, noise_lines, print_json
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.format import cost_line, rungs, seconds_left, short_value
from tmsearch.cli.view.table import table, truncate
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.formatting import estimated_duration
from tmsearch.trial.facts import StudyFacts


def status(arguments: argparse.Namespace) -> int:
    """A line a configuration, and where the study stands."""
    storage = open_storage(arguments.storage)
    ledger = study.open_study(storage, arguments.study)
    if arguments.watch is not None:
        if arguments.json:
            raise UserError("status: --watch is for a person, --json for a script; give one of them")
        from tmsearch.cli.commands.watch import watch

        return watch(ledger, arguments.watch)
    summary = study.summarize(ledger)
    if arguments.json:
        facts = StudyFacts.from_json(summary.facts)
        rows = [configuration_json(one, facts) for one in summary.history]
        at_work = [dataclasses.asdict(one) for one in summary.workers]
        found = {
            "storage": storage.display_name,
            "stopped": summary.record.stop_reason,
            "code": code_versions(summary.history),
        }
        return print_json({"study": summary.record.name, **found, "workers": at_work, "configurations": rows})
    terminal.print_lines(lines(summary, terminal.width()))
    return 0


def lines(summary: Summary, width: int, height: int | None = None) -> list[StyledLine]:
    """The whole page, no line wider than `width`; in `height` lines, where that is given, some configurations less."""
    above, below = _above(summary), _below(summary)
    shown: Sequence[Configuration] = summary.history
    room = len(shown) if height is None else height - len(above) - len(below) - 4
    if len(shown) > room:
        shown = _chosen(summary, max(1, room))
        below.insert(0, f"{len(summary.history) - len(shown)} more: `tmsearch status {summary.record.name}` lists all")
    found = table(summary, shown, width) if shown else None
    if found and found.hidden:
        below.insert(0, f"no room for {', '.join(found.hidden)}: a wider terminal, or --json, has them")
    plain: list[StyledLine] = [[(truncate(text, width), "")] for text in below]
    page: list[StyledLine] = [
        [(truncate(text, width), "bold" if not place else "")] for place, text in enumerate(above)
    ]
    return [*page, *(found.head + found.rows if found else []), *plain]


def _chosen(summary: Summary, room: int) -> list[Configuration]:
    """The best, those at work, and the latest of the others; in their order."""
    best = summary.best.number if summary.best else None
    ranked = sorted(summary.history, key=lambda one: (one.number != best, one.state != "running", -one.number))
    return sorted(ranked[:room], key=lambda one: one.number)


def _above(summary: Summary) -> list[str]:
    record = summary.record
    states = ", ".join(f"{count} {state}" for state, count in summary.counts.items()) or "none begun"
    mine = len(imported.without_imported(summary.history))
    more = f" and {len(summary.history) - mine} imported" if mine < len(summary.history) else ""
    found = [f"study {record.name}: {mine} of {record.trials} configurations{more}: {states}"]
    facts = StudyFacts.from_json(summary.facts)
    for model, baseline in facts.baselines.items():
        interval = intervals.bracketed(intervals.baseline_interval(facts, model))
        found.append(f"{printable(short_value(model))} untrained (zero-shot): WER {baseline.wer:.3f}{interval}")
    return [*found, rungs(summary, best=True)] if summary.history else found


def _below(summary: Summary) -> list[str]:
    """Costs, noise, who works where, and what a person should know about how the results came to be."""
    found = [cost_line(summary)] if summary.history else []
    found += noise_lines(summary)
    trials = {one.worker: one.number for one in summary.history if one.state == "running"}
    alive = [one for one in summary.workers if one.alive]
    left = seconds_left(summary, len(alive)) if alive else None
    if left:
        found.append(f"{estimated_duration(left)} left with {len(alive)} worker{'s' if len(alive) > 1 else ''}")
    for worker in alive:
        doing = f"trial {trials[worker.identity]}" if worker.identity in trials else "waits"
        found.append(f"worker {worker.display_name}: {doing}")
    code = code_versions(summary.history)
    if len(code) > 1:
        found.append(f"the code changed midway: {', '.join(f'{count} by {name}' for name, count in code.items())}")
    if summary.record.stop_reason:
        found.append(f"stopped: {printable(summary.record.stop_reason)}")
    if summary.best:
        found.append(f"* the best so far; `tmsearch show {summary.record.name} {summary.best.number}` tells more")
    return found
