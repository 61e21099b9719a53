"""The commands add, retry, stop and delete."""

from __future__ import annotations

import argparse
import sys

from search import study
from search.errors import UserError
from search.paths import study_folder
from search.samplers import sampler
from search.space import search_space
from search.space.errors import Location
from search.space.search_space import Space
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.knobs import TRAIN, absolute
from tmsearch.cli.view.format import searched_knobs


def _ledger(arguments: argparse.Namespace) -> Ledger:
    return study.open_study(open_storage(arguments.storage), arguments.study)


def add(arguments: argparse.Namespace) -> int:
    """Queue one configuration; what is left out is sampled."""
    ledger = _ledger(arguments)
    record, history = ledger.record(), ledger.history()
    known = Space.from_json(dict(record.space))
    given = search_space.values(arguments.values, TRAIN)
    if "model" in given:
        given["model"] = absolute(given["model"])
    drawn = sampler.draw(
        known.search,
        history,
        seed=record.seed,
        number=len(history),
        last_rung=known.budget.scheduler_config.last_rung,
        given=known.drawn_from_start(given, TRAIN, Location("tmsearch add")),
    )
    params = known.resolve(drawn, TRAIN)
    number = ledger.append("added", drawn, params)
    print(f"trial {number} is queued: {searched_knobs(record.space, params)}; `tmsearch resume {record.name}` runs it")
    if number >= record.trials:
        ledger.set_trials(number + 1)
    return 0


def retry(arguments: argparse.Namespace) -> int:
    """Queue failed configurations again."""
    ledger = _ledger(arguments)
    history = ledger.history()
    numbers = arguments.numbers or [one.number for one in history if one.state == "failed"]
    for number in numbers:
        if number >= len(history):
            raise UserError(f"{ledger.study}: no configuration {number}; there are {len(history)}")
        if history[number].state != "failed":
            raise UserError(f"{ledger.study}: trial {number} is {history[number].state}; only failed ones are retried")
    queued = ledger.requeue(numbers)
    if not queued:
        print(f"study {ledger.study}: nothing has failed")
        return 0
    print(f"queued again: trial {', '.join(map(str, queued))}; `tmsearch resume {ledger.study}` runs them")
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """Ask a study's workers to save and leave."""
    ledger = _ledger(arguments)
    at_work = {one.worker_name for one in ledger.history() if one.state == "running" and one.worker_name}
    workers = sorted({one.display_name for one in ledger.workers() if one.alive} or at_work)
    if not workers:
        print(f"study {ledger.study}: no worker is on it")
        return 0
    ledger.request_stop()
    print(f"study {ledger.study}: asked to save and leave: {', '.join(workers)}")
    return 0


def delete(arguments: argparse.Namespace) -> int:
    """Remove a study from the database, and its files."""
    ledger = _ledger(arguments)
    folder = study_folder(ledger.storage.folder, ledger.study)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError(f"{ledger.study}: nothing was deleted; add --yes where nobody can be asked")
        reply = input(f"delete study {ledger.study}, {len(ledger.history())} configurations and {folder}? [y/N] ")
        if reply.strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    study.delete(ledger)
    print(f"study {ledger.study} is deleted")
    return 0
