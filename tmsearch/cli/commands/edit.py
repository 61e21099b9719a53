"""The commands add, retry, stop and delete: they change a study's rows."""

from __future__ import annotations

import argparse
import os
import sys

from search import study
from search.errors import UserError
from search.execution.checkpoint_store import CheckpointStore
from search.exit_codes import DONE
from search.paths import study_folder
from search.samplers import knowledge, sampler
from search.space import search_space
from search.space.errors import Location
from search.space.search_space import Space
from search.storage import ownership
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.confirmation import SUFFIX
from tmsearch.cli.services.knobs import TRAIN, absolute
from tmsearch.cli.view.format import numbers_in_words, searched_knobs


def _ledger(arguments: argparse.Namespace) -> Ledger:
    return study.open_study(open_storage(arguments.storage), arguments.study)


def add(arguments: argparse.Namespace) -> int:
    """Queue one configuration; what is left out is sampled."""
    ledger = _ledger(arguments)
    record = ledger.record()
    history = ledger.history()
    space = Space.from_json(dict(record.space))
    values = search_space.values(arguments.values, TRAIN, searched=tuple(space.search))
    if "model" in values:
        values["model"] = absolute(values["model"])
    drawn = sampler.draw(
        space.search,
        history,
        seed=record.seed,
        number=len(history),
        last_rung=space.budget.scheduler_config.last_rung,
        given=space.drawn_from_start(values, TRAIN, Location("add")),
        knowledge=knowledge.of_facts(ledger.facts(), space.search),
    )
    params = space.resolve(drawn, TRAIN)
    number = ledger.append("added", drawn, params)
    print(f"trial {number} is queued: {searched_knobs(record.space, params)}; `tmsearch resume {record.name}` runs it")
    ledger.cover_added()
    return DONE


def retry(arguments: argparse.Namespace) -> int:
    """Queue failed configurations again."""
    ledger = _ledger(arguments)
    history = ledger.history()
    numbers = arguments.numbers or [trial.number for trial in history if trial.state == "failed"]
    for number in numbers:
        if number >= len(history):
            existing = numbers_in_words(history)
            raise UserError(f"{ledger.study}: no configuration {number}; there are {existing}")
        if history[number].state != "failed":
            raise UserError(f"{ledger.study}: trial {number} is {history[number].state}; only failed ones are retried")
    queued = ledger.requeue(numbers)
    if not queued:
        print(f"study {ledger.study}: nothing has failed")
        return DONE
    print(f"queued again: trial {', '.join(map(str, queued))}; `tmsearch resume {ledger.study}` runs them")
    return DONE


def stop(arguments: argparse.Namespace) -> int:
    """Ask a study's workers to save and exit."""
    ledger = _ledger(arguments)
    workers = {worker.display_name for worker in ledger.workers() if worker.alive}
    if not workers:
        running = (trial.worker_name for trial in ledger.history() if trial.state == "running")
        workers = {name for name in running if name}
    if not workers:
        print(f"study {ledger.study}: no worker is on it")
        return DONE
    ledger.request_stop()
    print(f"study {ledger.study}: asked to save and exit: {', '.join(sorted(workers))}")
    return DONE


def delete(arguments: argparse.Namespace) -> int:
    """Remove a study from the database, and its files."""
    ledger = _ledger(arguments)
    folder = study_folder(ledger.storage.folder, ledger.study)
    study.check_deletable(ledger)  # before a person is asked
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError(f"{ledger.study}: nothing was deleted; add --yes where nobody can be asked")
        reply = input(f"delete study {ledger.study}, {len(ledger.history())} configurations and {folder}? [y/N] ")
        if reply.strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return DONE
    url = os.environ.get("TMSEARCH_CHECKPOINTS")
    store = CheckpointStore(url, ownership.unique_name(ledger), print) if url else None
    remarks = study.delete(ledger)
    if store is not None:
        store.clear()
    print(f"study {ledger.study} is deleted")
    if ledger.study + SUFFIX in study.names(ledger.storage):
        remarks.append(f"its confirmation is still there; `tmsearch delete {ledger.study}{SUFFIX}` deletes that")
    for remark in remarks:
        print(remark)
    return DONE
