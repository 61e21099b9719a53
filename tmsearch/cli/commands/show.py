"""The commands list, show and best."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from search import imported, study
from search.errors import UserError
from search.paths import study_folder, trial_folder
from search.records import Configuration
from search.space.errors import printable
from search.space.search_space import Space
from search.storage.database import Storage, open_storage
from search.study import Summary
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.table import STATE_STYLES
from tmsearch.evaluation.scores import ClipScore, read_scores, worst_first
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import StudyFacts

WIDEST_NAME = 32  # columns that names line up in; a longer one pushes its line


def _summary(arguments: argparse.Namespace) -> tuple[Storage, Summary]:
    storage = open_storage(arguments.storage)
    return storage, study.summarize(study.open_study(storage, arguments.study))


def configuration_json(one: Configuration, facts: StudyFacts) -> dict[str, Any]:
    """A configuration in the form that scripts are written against."""
    return {
        "number": one.number,
        "state": one.state,
        "params": dict(one.params) if one.params is not None else None,
        "steps": one.steps,
        "wer": one.value,
        "wer_interval": intervals.as_json(intervals.interval(facts, one)),
        "wer_raw": one.metrics.get("wer_raw"),
        "cer": one.metrics.get("cer"),
        "train_seconds": one.total("train_seconds"),
        "eval_seconds": one.total("eval_seconds"),
        "reason": one.reason,
        "worker": one.worker_name,
    }


def print_json(value: Any) -> int:
    """For scripts: standard JSON, without NaN."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    return 0


def _wer(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cost(one: Configuration) -> str:
    return clock_time(one.seconds)


def list_studies(arguments: argparse.Namespace) -> int:
    """Every study, a line each."""
    storage = open_storage(arguments.storage)
    found = _readable(storage)
    if arguments.json:
        return print_json(
            [
                {
                    "study": one.record.name,
                    "storage": storage.display_name,
                    "trials": one.record.trials,
                    "states": one.counts,
                    "best": configuration_json(one.best, StudyFacts.from_json(one.facts)) if one.best else None,
                }
                for one in found
            ]
        )
    if not found:
        print(f"no study in {storage.display_name}")
    width = max((len(one.record.name) for one in found), default=0)
    for one in found:
        wer = _wer(one.best.value if one.best else None)
        wer += intervals.bracketed(intervals.interval(StudyFacts.from_json(one.facts), one.best)) if one.best else ""
        running = sum(each.state == "running" for each in one.history)
        at_work = f"  {running} running" if running else ""
        name, mine = one.record.name.ljust(min(width, WIDEST_NAME)), len(imported.without_imported(one.history))
        said = f"  {mine:>3} of {one.record.trials:>3}  best WER {wer}"
        terminal.print_lines([[(name, "bold"), (said, ""), (at_work, "cyan")]])
    return 0


def _readable(storage: Storage) -> list[Summary]:
    """The studies that this version can read; what is wrong with another is one line on the error stream."""
    summaries = []
    for name in study.names(storage):
        summary = study.summarize(study.open_study(storage, name))
        try:
            Space.from_json(dict(summary.record.space))
        except UserError as error:
            print(f"tmsearch: {error}", file=sys.stderr)
            continue
        summaries.append(summary)
    return summaries


def noise_lines(summary: Summary) -> list[str]:
    """What imported trainings of one recipe differ by; nothing where it is not known."""
    found = imported.repeat_noise(summary.history)
    if found is None:
        return []
    return [f"noise: WERs of one recipe differ by {found.deviation:.4f} (sd of {found.runs} imported)"]


def _one(summary: Summary, number: int) -> Configuration:
    if number >= len(summary.history):
        last = f"0 to {len(summary.history) - 1}" if summary.history else "none"
        raise UserError(f"{summary.record.name}: no configuration {number}; there are {last}")
    return summary.history[number]


def show(arguments: argparse.Namespace) -> int:
    """All about one configuration."""
    storage, summary = _summary(arguments)
    facts = StudyFacts.from_json(summary.facts)
    one = _one(summary, arguments.number)
    folder = trial_folder(study_folder(storage.folder, summary.record.name), one.number)
    if arguments.json:
        curve = [{"step": rung.step, "wer": rung.value, **rung.metrics} for rung in one.rungs]
        more = {"origin": one.origin, "curve": curve, "folder": str(folder)}
        return print_json({**configuration_json(one, facts), **more})
    why = f", {printable(one.reason)}" if one.reason else ""
    head = f"study {summary.record.name}, trial {one.number}: "
    terminal.print_lines([[(head, "bold"), (one.state, STATE_STYLES[one.state]), (why, "")]])
    if one.worker_name:
        print(f"worker: {one.worker_name}")
    print(f"origin: {one.origin}; cost {_cost(one)}; files in {folder}")
    for name, value in (one.params or {}).items():
        print(f"  {name}: {printable(str(value))}{'' if name in summary.record.space['search'] else '  (fixed)'}")
    for rung in one.rungs:
        raw, cer = rung.metrics.get("wer_raw"), rung.metrics.get("cer")
        interval = intervals.bracketed(intervals.interval(facts, one, rung.step))
        print(f"step {rung.step:>6}  WER {rung.value:.3f}{interval}  raw {_wer(raw)}  CER {_wer(cer)}")
    _worst(read_scores(folder, one.steps))
    return 0


def _worst(clips: Sequence[ClipScore], most: int = 5) -> None:
    """The clips with the most word errors, from the evaluation's table."""
    if not clips:
        return
    print("clips with the most word errors:")
    for clip in worst_first(clips)[:most]:
        print(f"  {printable(clip.name)}: {clip.edits} errors in {clip.words} words")
        print(f"    said:  {printable(clip.reference)}")
        print(f"    heard: {printable(clip.hypothesis)}")


def show_best(arguments: argparse.Namespace) -> int:
    """The best configuration so far."""
    storage, summary = _summary(arguments)
    best = summary.best
    if best is None:
        raise UserError(f"{summary.record.name}: no configuration has a result yet; `tmsearch resume` goes on")
    facts = StudyFacts.from_json(summary.facts)
    if arguments.json:
        found = {"study": summary.record.name, "storage": storage.display_name, **configuration_json(best, facts)}
        return print_json(found)
    full = summary.record.space["budget"]["max_steps"]
    early = "" if best.steps >= full else f" of {full}: nothing was trained in full yet"
    wer = f"WER {_wer(best.value)}{intervals.bracketed(intervals.interval(facts, best))}"
    terminal.print_lines(
        [[(f"study {summary.record.name}: trial {best.number}, {wer} at step {best.steps}{early}", "bold")]]
    )
    for name, value in (best.params or {}).items():
        print(f"  {name}: {printable(str(value))}")
    for line in noise_lines(summary):
        print(line)
    print("in brackets: the 95 % interval over utterances; other seeds move it further")
    print(f"`tmsearch confirm {summary.record.name}` says whether it is more than luck")
    print(f"`tmsearch report {summary.record.name}` is a page to look at and listen to")
    print(f"`tmsearch export {summary.record.name} -o best.yaml` writes it as a recipe")
    return 0
