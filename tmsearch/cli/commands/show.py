"""The commands list, show and best."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search import imported, study
from search.errors import UserError
from search.exit_codes import DONE
from search.imported import MEASURE
from search.paths import trial_folder
from search.records import Configuration, Rung
from search.space.errors import printable
from search.storage import ownership
from search.storage.database import Storage, open_storage
from search.study import Summary
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.format import numbers_in_words, rates_beside
from tmsearch.cli.view.status_page import noise_lines
from tmsearch.cli.view.table import STATE_STYLES
from tmsearch.cli.view.trial_fields import configuration_json
from tmsearch.evaluation.scores import ClipScore, read_scores, worst_first
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import CONFIRMS, StudyFacts

if TYPE_CHECKING:
    from tmsearch.evaluation.bootstrap import Interval

WIDEST_NAME = 32  # columns that names line up in; a longer one pushes its line


def print_json(value: Any) -> int:
    """Print standard JSON, without NaN, for scripts."""
    terminal.print_json(value)
    return DONE


def list_studies(arguments: argparse.Namespace) -> int:
    """Every study, a line each."""
    storage = open_storage(arguments.storage)
    summaries = _readable(storage)
    if arguments.json:
        return print_json([_study_json(storage, summary) for summary in summaries])
    if not summaries:
        print(f"no study in {storage.display_name}")
    width = min(WIDEST_NAME, max((len(summary.record.name) for summary in summaries), default=0))
    for summary in summaries:
        progress = f"  {summary.judged:>3} of {summary.total:>3}  best {summary.record.measure} {_best_wer(summary)}"
        line = [(summary.record.name.ljust(width), "bold"), (progress, "")]
        running = summary.counts.get("running")
        if running:
            line.append((f"  {running} running", "cyan"))
        terminal.print_lines([line])
    return DONE


def _study_json(storage: Storage, summary: Summary) -> dict[str, Any]:
    best = summary.best
    return {
        "study": summary.record.name,
        "storage": storage.display_name,
        "trials": summary.record.trials,
        "states": summary.counts,
        "best": configuration_json(best, _last_interval(summary, best)) if best else None,
    }


def _best_wer(summary: Summary) -> str:
    if summary.best is None:
        return "-"
    return f"{_wer(summary.best.value)}{_interval(summary, summary.best)}"


def _wer(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(summary: Summary, trial: Configuration, step: int | None = None) -> str:
    """The 95 % interval of a trial's WER, in brackets; empty where it is not known."""
    return intervals.bracketed(intervals.interval(StudyFacts.from_json(summary.facts), trial, step))


def _last_interval(summary: Summary, trial: Configuration) -> Interval | None:
    return intervals.interval(StudyFacts.from_json(summary.facts), trial)


def _readable(storage: Storage) -> list[Summary]:
    """The studies that this version can read; what is wrong with the others goes to the error stream, a line each."""
    summaries = []
    for name in study.names(storage):
        try:
            summaries.append(study.summarize(study.open_study(storage, name)))
        except UserError as error:
            print(f"tmsearch: {error}", file=sys.stderr)
    return summaries


def show(arguments: argparse.Namespace) -> int:
    """All about one configuration."""
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    summary = study.summarize(ledger)
    trial = _configuration(summary, arguments.number)
    folder = trial_folder(ownership.checked_folder(ledger), trial.number)
    if arguments.json:
        fields = configuration_json(trial, _last_interval(summary, trial))
        curve = [{"step": rung.step, "wer": rung.value, **rung.metrics} for rung in trial.rungs]
        return print_json({**fields, "origin": trial.origin, "curve": curve, "folder": str(folder)})
    reason = f", {printable(trial.reason)}" if trial.reason else ""
    title = f"study {summary.record.name}, trial {trial.number}: "
    terminal.print_lines([[(title, "bold"), (trial.state, STATE_STYLES[trial.state]), (reason, "")]])
    if trial.worker_name:
        print(f"worker: {trial.worker_name}")
    print(f"origin: {trial.origin}; cost {clock_time(trial.seconds)}; files in {folder}")
    for name, value in (trial.params or {}).items():
        fixed = "" if name in summary.record.space["search"] else "  (fixed)"
        print(f"  {name}: {printable(str(value))}{fixed}")
    for rung in trial.rungs:
        _print_rung(summary, trial, rung)
    if any(not imported.compares(trial, rung) for rung in trial.rungs):
        print("trained elsewhere, on other terms than the study's own trials: these values do not compare with theirs")
    _print_worst_clips(read_scores(folder, trial.steps))
    return DONE


def _print_rung(summary: Summary, trial: Configuration, rung: Rung) -> None:
    """One line: what is minimised with its interval, the raw WER, the other rate."""
    value: float | None = rung.value
    raw_wer = rung.metrics.get("wer_raw")
    if rung.metrics.get(MEASURE) == "wer_raw":  # a log's own WER, in which case and punctuation count
        value = None
        raw_wer = rung.value
    rate = f"{summary.record.measure} {_wer(value)}{_interval(summary, trial, rung.step)}"
    print(f"step {rung.step:>6}  {rate}  raw {_wer(raw_wer)}  {rates_beside(summary.record.objective, rung.metrics)}")


def _configuration(summary: Summary, number: int) -> Configuration:
    if number >= len(summary.history):
        existing = numbers_in_words(summary.history)
        raise UserError(f"{summary.record.name}: no configuration {number}; there are {existing}")
    return summary.history[number]


def _print_worst_clips(clips: Sequence[ClipScore], count: int = 5) -> None:
    """The clips with the most word errors, from the evaluation's table."""
    if not clips:
        return
    print("clips with the most word errors:")
    for clip in worst_first(clips)[:count]:
        print(f"  {printable(clip.name)}: {clip.edits} errors in {clip.words} words")
        print(f"    reference:  {printable(clip.reference)}")
        print(f"    hypothesis: {printable(clip.hypothesis)}")


def show_best(arguments: argparse.Namespace) -> int:
    """The best configuration so far."""
    storage = open_storage(arguments.storage)
    summary = study.summarize(study.open_study(storage, arguments.study))
    name = summary.record.name
    best = summary.best
    if best is None:
        raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` continues")
    if arguments.json:
        fields = configuration_json(best, _last_interval(summary, best))
        return print_json({"study": name, "storage": storage.display_name, **fields})
    max_steps = summary.record.space["budget"]["max_steps"]
    early = "" if best.steps >= max_steps else f" of {max_steps}: nothing was trained in full yet"
    wer = f"{summary.record.measure} {_wer(best.value)}{_interval(summary, best)}"
    terminal.print_lines([[(f"study {name}: trial {best.number}, {wer} at step {best.steps}{early}", "bold")]])
    for knob, value in (best.params or {}).items():
        print(f"  {knob}: {printable(str(value))}")
    for line in noise_lines(summary):
        print(line)
    print("in brackets: the 95 % interval over utterances; other seeds move it further")
    _print_next(storage, summary, best)
    print(f"`tmsearch report {name}` is a page to look at and listen to")
    return DONE


def _print_next(storage: Storage, summary: Summary, best: Configuration) -> None:
    """What the confirmation decided, and else the command that makes sense now."""
    from tmsearch.cli.services.recipes import finished_confirmation
    from tmsearch.cli.services.verdicts import decide

    name = summary.record.name
    confirmed = finished_confirmation(storage, summary)
    decision = decide(confirmed) if confirmed is not None else None
    if decision is not None:
        print(f"confirmed: {decision.reason}; `tmsearch export {name} -o best.yaml` takes {decision.subject}")
    elif not summary.has_ended:
        print(f"provisional: the study has not ended; `tmsearch resume {name}` continues it")
    elif CONFIRMS in summary.facts:
        of = StudyFacts.from_json(summary.facts).plan.of
        print(f"one training of a confirmation: `tmsearch confirm {of}` compares means over seeds")
    else:
        print(f"`tmsearch confirm {name}` says whether it is more than luck")
        print(f"`tmsearch export {name} -o best.yaml` writes trial {best.number} as a recipe")
