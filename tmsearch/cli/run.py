"""The commands run and resume."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search import study
from search.child import Child, ChildDied, each_event
from search.errors import RunError, UserError
from search.ledger import Ledger
from search.records import StudyRecord
from search.space import Space, differences
from search.storage import Storage, open_storage
from search.worker import Interrupts, Worker
from tmsearch import __version__
from tmsearch.cli.display import Display, answer
from tmsearch.cli.plan import candidates, data_line, print_plan
from tmsearch.cli.spaces import TRAIN, load_space
from tmsearch.recipe import write_atomically

DEFAULT_TRIALS = 20
CONFIRMS = "confirms"  # the fact that makes a study a confirmation: of which one, and with what
Answered = Callable[[study.Summary], list[str]]
# OpenMP's threads burn their core while they wait. Beside other work on the same cores that costs up to five times a
# step's time; sleeping at once costs a quarter of it on quiet cores. 2,000 turns of waiting cost next to nothing in
# either (tiny.en, 2 cores, 2026-11-23; studies/README.md).
THREADS_THAT_SLEEP_SOON = {"GOMP_SPINCOUNT": "2000"}


def new_child() -> Child:
    return Child([sys.executable, "-m", "tmsearch.trial"], environment=THREADS_THAT_SLEEP_SOON)


def cache_folder() -> Path:
    """Where log-mels are kept between studies: TMSEARCH_CACHE, else XDG_CACHE_HOME/tmsearch."""
    named = os.environ.get("TMSEARCH_CACHE")
    if named:
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmsearch"


def run(arguments: argparse.Namespace) -> int:
    """Start a study, or go on with it."""
    space = load_space(arguments.space, arguments.set, arguments.study)
    storage = open_storage(arguments.storage)
    known = space.study in study.names(storage)
    if known:
        _same(study.open_study(storage, space.study).record(), space, arguments)
    if not known or arguments.dry_run:
        child = new_child()
        try:
            checked = _check(child, space, measure=arguments.dry_run)
            _disk(storage.folder, checked)
            if arguments.dry_run:
                print_plan(space, storage, checked, arguments.trials or DEFAULT_TRIALS)
                return 0
            ledger = _create(storage, space, checked, arguments.trials or DEFAULT_TRIALS, arguments.seed or 0)
            return work(ledger, child, arguments.timeout)
        finally:
            child.close()
    return _go_on(study.open_study(storage, space.study), arguments)


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a study from the space kept in the database."""
    return _go_on(study.open_study(open_storage(arguments.storage), arguments.study), arguments)


def _go_on(ledger: Ledger, arguments: argparse.Namespace) -> int:
    ledger.set_trials(arguments.trials or ledger.record().trials)
    child = new_child()
    try:
        return work(ledger, child, arguments.timeout)
    finally:
        child.close()


def _same(record: StudyRecord, space: Space, arguments: argparse.Namespace) -> None:
    """Refuse to go on with another space or seed than the study began with."""
    found = []
    if record.fingerprint != space.fingerprint():
        found = differences(Space.from_json(dict(record.space)), space)
    if arguments.seed is not None and arguments.seed != record.seed:
        found.append(f"--seed: was {record.seed}, is {arguments.seed}")
    if found:
        raise UserError(
            f"{arguments.space}: study {record.name} was begun with another space: {'; '.join(found)}; "
            "put it back, or start beside it with --study NEW"
        )


def _check(child: Child, space: Space, *, measure: bool) -> dict[str, Any]:
    """Let the child look at data and models; raises UserError for what a person has to mend."""
    job = {"job": "check", "data": dict(space.data), "candidates": candidates(space), "measure": measure}
    try:
        said = each_event(child, job, lambda event: None)
    except ChildDied as death:
        last = child.said[-1] if child.said else "it said nothing"
        raise RunError(f"the check of data and models ended: {death}: {last}") from None
    if said.get("event") == "checked":
        return said
    reason = str(said.get("reason"))
    raise UserError(reason) if said.get("failure") == "input" else RunError(reason)


def _disk(folder: Path, checked: Mapping[str, Any]) -> None:
    """Two checkpoints, the one being written and the one before, must fit at the least."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    need = 2 * max(model["checkpoint_bytes"] for model in checked["models"].values())
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(
            f"{there}: {free / 1e9:.1f} GB free, a trial's checkpoints need {need / 1e9:.1f} GB; "
            "make room, or set TMSEARCH_STUDIES to another disk"
        )


def _create(storage: Storage, space: Space, checked: Mapping[str, Any], trials: int, seed: int) -> Ledger:
    known = {"data": checked["data"], "threads": len(os.sched_getaffinity(0))}
    return study.create(storage, space, seed=seed, trials=trials, version=__version__, known=known)


def created(storage: Storage, space: Space) -> Ledger:
    """A new study that has run nothing yet, its data and models checked."""
    child = new_child()
    try:
        checked = _check(child, space, measure=False)
        return _create(storage, space, checked, DEFAULT_TRIALS, 0)
    finally:
        child.close()


@contextmanager
def _signals(interrupts: Interrupts) -> Iterator[None]:
    """Ctrl-C and SIGTERM once: finish the step, save, leave. Twice: leave now."""

    def asked(number: int, frame: object) -> None:
        interrupts.signal()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(ledger: Ledger, child: Child, timeout: float | None, answered: Answered = answer) -> int:
    """One worker on the study until it leaves; prints what `answered` makes of the study then. The exit code."""
    deadline = time.monotonic() + timeout if timeout else math.inf
    summary = study.summarise(ledger)
    record, storage = summary.record, ledger.storage
    space = Space.from_json(dict(record.space))
    folder = study.study_folder(storage, record.name)
    folder.mkdir(parents=True, exist_ok=True)
    child.log_to(folder / "worker.log")
    _keep_space(folder, record)
    job = {
        "data": dict(space.data),
        "max_steps": space.budget.max_steps,
        "threads": summary.facts["threads"],
        "cache": str(cache_folder()),
        "tensorboard": str(folder / "tensorboard"),
        "keep_weights": CONFIRMS in summary.facts,  # confirm's models are scored once more, or merged
    }
    interrupts = Interrupts()
    with _signals(interrupts), Display(summary) as display:
        judged = space.budget.judged
        display.say(f"study {record.name}: {record.trials} configurations, judged at {judged}; {storage.shown}")
        display.say(data_line(space.data["dataset"], summary.facts["data"]))
        outcome = Worker(ledger, space, TRAIN, child, folder, job, display).run(interrupts, deadline)
    summary = study.summarise(ledger)
    for line in _ending(outcome, record.name) + answered(summary):
        print(line)
    if outcome == "interrupted":
        return 130
    return 1 if outcome == "done" and summary.best is None else 0


def _ending(outcome: str, name: str) -> list[str]:
    return {
        "done": [],
        "stopped": [f"stopped as asked, everything is kept; `tmsearch resume {name}` goes on"],
        "timeout": [f"the time is up, everything is kept; `tmsearch resume {name}` goes on"],
        "interrupted": [f"interrupted, everything is kept; the same command, or `tmsearch resume {name}`, goes on"],
    }[outcome]


def _keep_space(folder: Path, record: StudyRecord) -> None:
    """A copy to read; the one that counts is in the database."""
    import yaml

    file = folder / "space.yaml"
    if not file.exists():
        write_atomically(file, yaml.safe_dump(dict(record.space), sort_keys=False, allow_unicode=True))
