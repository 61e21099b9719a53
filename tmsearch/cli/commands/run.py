"""The commands run, resume and worker: they start workers on a study."""

from __future__ import annotations

import argparse
import sys

from search import study
from search.errors import MachineError, UserError
from search.execution.launchers.local import exit_with_parent
from search.exit_codes import DONE, MACHINE
from search.process_id import ProcessId
from search.records import StudyRecord
from search.space.search_space import Space, differences
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.create import DEFAULT_TRIALS, check_disk, check_space, create_study
from tmsearch.cli.services.knobs import load_space
from tmsearch.cli.services.plan import print_plan
from tmsearch.cli.services.run_study import new_trial_process, run_study, worker_plan


def run(arguments: argparse.Namespace) -> int:
    """Start a study, or continue it."""
    space = load_space(arguments.space, arguments.set, arguments.study)
    storage = open_storage(arguments.storage)
    exists = space.study in study.names(storage)
    if exists:
        _check_unchanged(study.open_study(storage, space.study).record(), space, arguments)
    if exists and not arguments.dry_run:
        return _continue(study.open_study(storage, space.study), arguments)
    if not exists:
        study.check_unused(storage, space.study)
    child = new_trial_process()
    try:
        checked = check_space(child, space, measure=arguments.dry_run)
        check_disk(storage.folder, checked)
        trials = arguments.trials or DEFAULT_TRIALS
        if arguments.dry_run:
            print_plan(space, storage, checked, trials)
            return DONE
        workers = worker_plan(arguments)
        try:
            ledger = create_study(storage, space, checked, workers, trials, arguments.seed or 0)
        except UserError:
            if space.study not in study.names(storage):
                raise
            ledger = study.open_study(storage, space.study)  # another process made it meanwhile
            _check_unchanged(ledger.record(), space, arguments)
            return _continue(ledger, arguments)
        if arguments.trials:
            ledger.set_trials(trials, ProcessId.current())
        return run_study(ledger, child, arguments.timeout, workers=workers)
    finally:
        child.close()


def resume(arguments: argparse.Namespace) -> int:
    """Continue a study with the space that the database holds."""
    return _continue(study.open_study(open_storage(arguments.storage), arguments.study), arguments)


def worker(arguments: argparse.Namespace) -> int:
    """Work on a study until nothing is left to do in it."""
    exit_with_parent()
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    record = ledger.record()
    if record.stopping:
        reason = record.stop_reason or "somebody asked its workers to stop"
        raise UserError(f"{record.name}: {reason}; `tmsearch resume {record.name}` continues it")
    child = new_trial_process()
    try:
        return run_study(ledger, child, arguments.timeout)
    except MachineError as error:
        print(f"tmsearch: {error}", file=sys.stderr)
        return MACHINE
    finally:
        child.close()


def _continue(ledger: Ledger, arguments: argparse.Namespace) -> int:
    if arguments.trials:
        total = ledger.set_trials(arguments.trials, ProcessId.current())
        if total > arguments.trials:
            print(
                f"--trials {arguments.trials}: study {ledger.study} has or works towards {total} configurations "
                f"already; its total is {total}"
            )
    else:
        ledger.withdraw_stop()
    child = new_trial_process()
    try:
        return run_study(ledger, child, arguments.timeout, workers=worker_plan(arguments))
    finally:
        child.close()


def _check_unchanged(record: StudyRecord, space: Space, arguments: argparse.Namespace) -> None:
    """Refuse to continue a study with another space or seed than it was started with."""
    changes = []
    if record.fingerprint != space.fingerprint():
        changes = differences(Space.from_json(dict(record.space)), space)
    if arguments.seed is not None and arguments.seed != record.seed:
        changes.append(f"--seed: was {record.seed}, is {arguments.seed}")
    if changes:
        raise UserError(
            f"{arguments.space}: study {record.name} was started with another space: {'; '.join(changes)}; "
            "put it back, or start a second study with --study NEW"
        )
