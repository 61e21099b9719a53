"""The commands list, status, show and best."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from search import imported, study
from search.errors import UserError
from search.places import printable
from search.records import IMPORTED, Configuration, versions
from search.storage import Storage, open_storage
from search.study import Summary, trial_folder
from tmsearch.cli import sure
from tmsearch.cli.words import clock_time, cost, short
from tmsearch.scores import ClipScore, read_scores, worst_first

WIDTH = 80


def _summary(arguments: argparse.Namespace) -> tuple[Storage, Summary]:
    storage = open_storage(arguments.storage)
    return storage, study.summarise(study.open_study(storage, arguments.study))


def _as_json(one: Configuration, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the form that scripts are written against."""
    return {
        "number": one.number,
        "state": one.state,
        "params": dict(one.params) if one.params is not None else None,
        "steps": one.steps,
        "wer": one.value,
        "wer_interval": sure.as_json(sure.interval(facts, one)),
        "wer_raw": one.metrics.get("wer_raw"),
        "cer": one.metrics.get("cer"),
        "train_seconds": one.total("train_seconds"),
        "eval_seconds": one.total("eval_seconds"),
        "reason": one.reason,
        "worker": one.shown_worker,
    }


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    return 0


def _wer(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cost(one: Configuration) -> str:
    return clock_time(one.seconds)


def list_studies(arguments: argparse.Namespace) -> int:
    """Every study, a line each."""
    storage = open_storage(arguments.storage)
    found = [study.summarise(study.open_study(storage, name)) for name in study.names(storage)]
    if arguments.json:
        return _print_json(
            [
                {
                    "study": one.record.name,
                    "storage": storage.shown,
                    "trials": one.record.trials,
                    "states": one.counts,
                    "best": _as_json(one.best, one.facts) if one.best else None,
                }
                for one in found
            ]
        )
    if not found:
        print(f"no study in {storage.shown}")
    for one in found:
        ended = sum(each.ended for each in one.history)
        wer = _wer(one.best.value if one.best else None)
        wer += sure.bracketed(sure.interval(one.facts, one.best)) if one.best else ""
        print(f"{one.record.name:<32} {ended:>4} of {one.record.trials} ended  best WER {wer}")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """One line a configuration."""
    storage, summary = _summary(arguments)
    if arguments.json:
        rows = [_as_json(one, summary.facts) for one in summary.history]
        at_work = [dataclasses.asdict(one) for one in summary.workers]
        found = {"storage": storage.shown, "stopped": summary.record.stop_reason, "code": versions(summary.history)}
        return _print_json({"study": summary.record.name, **found, "workers": at_work, "configurations": rows})
    record = summary.record
    states = ", ".join(f"{count} {state}" for state, count in summary.counts.items()) or "none begun"
    mine = len(imported.own(summary.history))
    more = f" and {len(summary.history) - mine} imported" if mine < len(summary.history) else ""
    print(f"study {record.name}: {mine} of {record.trials} configurations{more}: {states}")
    for key, value in sorted(summary.facts.items()):
        if key.startswith("baseline:"):
            model = key.removeprefix("baseline:")
            interval = sure.bracketed(sure.baseline_interval(summary.facts, model))
            print(f"{short(model)} untrained (zero-shot): WER {value['wer']:.3f}{interval}")
    if summary.history:
        knobs = list(record.space["search"])
        head = f"  no state    steps    WER {'95 %':<10}    cost  {', '.join(knobs)}"
        print(head if len(head) <= WIDTH else f"{head[: WIDTH - 3]}...")
        table = [[short((one.params or {}).get(name, "?")) for name in knobs] for one in summary.history]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for one, values in zip(summary.history, table, strict=True):
            what = " ".join(value.ljust(width) for value, width in zip(values, widths, strict=True))
            leads = summary.best is not None and summary.best.number == one.number
            sureness = sure.ranged(sure.interval(summary.facts, one))
            print(_row(one, what, leads, sureness)[:WIDTH].rstrip())
    if summary.history:
        print(f"  {cost(summary)}")
    _noise(summary)
    _at_work(summary)
    if summary.best:
        print(f"* the best so far; `tmsearch show {record.name} {summary.best.number}` tells more")
    return 0


def _at_work(summary: Summary) -> None:
    """Who works where; and what a person should know about how the results came to be."""
    trials = {one.worker: one.number for one in summary.history if one.state == "running"}
    for worker in summary.workers:
        if worker.alive:
            doing = f"trial {trials[worker.identity]}" if worker.identity in trials else "waits"
            print(f"  worker {worker.shown}: {doing}"[:WIDTH])
    code = versions(summary.history)
    if len(code) > 1:
        print(f"  the code changed midway: {', '.join(f'{count} by {name}' for name, count in code.items())}")
    if summary.record.stop_reason:
        print(f"  stopped: {printable(summary.record.stop_reason)}")


def _noise(summary: Summary) -> None:
    """What imported trainings of one recipe differ by."""
    found = imported.noise(summary.history)
    if found is not None:
        print(f"  noise: WERs of one recipe differ by {found.deviation:.4f} (sd of {found.runs} imported)")


def _row(one: Configuration, what: str, leads: bool, sureness: str) -> str:
    at = one.progress.get("step") if one.state == "running" else None
    state = IMPORTED if one.origin == IMPORTED and one.failure is None else one.state
    if one.state == "failed" or (one.state == "paused" and one.reason):
        what = one.reason or ""
    return (
        f"{'*' if leads else ' '}{one.number:>3} {state:<8} {at or one.steps:>5} {_wer(one.value):>6} {sureness:<10} "
        f"{_cost(one):>7}  {printable(what)}"
    )


def _one(summary: Summary, number: int) -> Configuration:
    if number >= len(summary.history):
        last = f"0 to {len(summary.history) - 1}" if summary.history else "none"
        raise UserError(f"{summary.record.name}: no configuration {number}; there are {last}")
    return summary.history[number]


def show(arguments: argparse.Namespace) -> int:
    """All about one configuration."""
    storage, summary = _summary(arguments)
    one = _one(summary, arguments.number)
    folder = trial_folder(study.study_folder(storage, summary.record.name), one.number)
    if arguments.json:
        curve = [{"step": rung.step, "wer": rung.value, **rung.metrics} for rung in one.rungs]
        more = {"origin": one.origin, "curve": curve, "folder": str(folder)}
        return _print_json({**_as_json(one, summary.facts), **more})
    print(f"study {summary.record.name}, trial {one.number}: {one.state}{f', {one.reason}' if one.reason else ''}")
    if one.shown_worker:
        print(f"worker: {one.shown_worker}")
    print(f"origin: {one.origin}; cost {_cost(one)}; files in {folder}")
    for name, value in (one.params or {}).items():
        print(f"  {name}: {value}{'' if name in summary.record.space['search'] else '  (fixed)'}")
    for rung in one.rungs:
        raw, cer = rung.metrics.get("wer_raw"), rung.metrics.get("cer")
        interval = sure.bracketed(sure.interval(summary.facts, one, rung.step))
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
    if arguments.json:
        found = {"study": summary.record.name, "storage": storage.shown, **_as_json(best, summary.facts)}
        return _print_json(found)
    full = summary.record.space["budget"]["max_steps"]
    early = "" if best.steps >= full else f" of {full}: nothing was trained in full yet"
    wer = f"WER {_wer(best.value)}{sure.bracketed(sure.interval(summary.facts, best))}"
    print(f"study {summary.record.name}: trial {best.number}, {wer} at step {best.steps}{early}")
    for name, value in (best.params or {}).items():
        print(f"  {name}: {value}")
    _noise(summary)
    print("in brackets: the 95 % interval over utterances; what other seeds give comes on top")
    print(f"`tmsearch confirm {summary.record.name}` says whether it is more than luck")
    print(f"`tmsearch export {summary.record.name} -o best.yaml` writes it as a recipe")
    return 0
