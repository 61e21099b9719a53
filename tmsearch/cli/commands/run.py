"""The commands run and resume."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from search import study
from search.errors import RunError, UserError
from search.execution.child_process import ChildExitError, ChildProcess, run_job
from search.execution.messages import Checked, CheckJob, Failure
from search.records import StudyRecord
from search.space.search_space import Space, differences
from search.storage.database import Storage, open_storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.knobs import load_space
from tmsearch.cli.services.plan import candidates, print_plan
from tmsearch.cli.services.run_study import WorkerPlan, new_trial_process, run_study, worker_plan
from tmsearch.trial import facts
from tmsearch.trial.facts import ModelNeeds
from tmsearch.version import code_version

DEFAULT_TRIALS = 20


def run(arguments: argparse.Namespace) -> int:
    """Start a study, or go on with it."""
    space = load_space(arguments.space, arguments.set, arguments.study)
    storage = open_storage(arguments.storage)
    known = space.study in study.names(storage)
    if known:
        _same(study.open_study(storage, space.study).record(), space, arguments)
    if not known or arguments.dry_run:
        child = new_trial_process()
        try:
            checked = _check(child, space, measure=arguments.dry_run)
            _disk(storage.folder, checked)
            if arguments.dry_run:
                print_plan(space, storage, checked, arguments.trials or DEFAULT_TRIALS)
                return 0
            hands = worker_plan(arguments)
            seed, trials = arguments.seed or 0, arguments.trials or DEFAULT_TRIALS
            ledger = _create(storage, space, checked, trials, seed, hands)
            return run_study(ledger, child, arguments.timeout, hands=hands)
        finally:
            child.close()
    return _go_on(study.open_study(storage, space.study), arguments)


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a study from the space kept in the database."""
    return _go_on(study.open_study(open_storage(arguments.storage), arguments.study), arguments)


def _go_on(ledger: Ledger, arguments: argparse.Namespace) -> int:
    ledger.set_trials(arguments.trials or ledger.record().trials)
    child = new_trial_process()
    try:
        return run_study(ledger, child, arguments.timeout, hands=worker_plan(arguments))
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


def _check(child: ChildProcess, space: Space, *, measure: bool) -> Checked:
    """Let the child look at data and models; raises UserError for what a person has to mend."""
    job = CheckJob(space.data, tuple(candidates(space)), measure)
    try:
        answer = run_job(child, job)
    except ChildExitError as death:
        last = child.stderr_lines[-1] if child.stderr_lines else "it said nothing"
        raise RunError(f"the check of data and models ended: {death}: {last}") from None
    if isinstance(answer, Checked):
        return answer
    if not isinstance(answer, Failure):
        raise RunError(f"unexpected answer {answer}")
    raise UserError(answer.reason) if answer.failure == "input" else RunError(answer.reason)


def _disk(folder: Path, checked: Checked) -> None:
    """Two checkpoints, the one being written and the one before, must fit at the least."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    need = 2 * max(ModelNeeds.from_json(model).checkpoint_bytes for model in checked.models.values())
    free = shutil.disk_usage(there).free
    if free < need:
        raise UserError(
            f"{there}: {free / 1e9:.1f} GB free, a trial's checkpoints need {need / 1e9:.1f} GB; "
            "make room, or set TMSEARCH_STUDIES to another disk"
        )


def _create(storage: Storage, space: Space, checked: Checked, trials: int, seed: int, hands: WorkerPlan) -> Ledger:
    known = {facts.DATA: checked.data, facts.THREADS: hands.threads}
    return study.create(storage, space, seed=seed, trials=trials, version=code_version(), known=known)


def created(storage: Storage, space: Space) -> Ledger:
    """A new study that has run nothing yet, its data and models checked."""
    child = new_trial_process()
    try:
        checked = _check(child, space, measure=False)
        return _create(storage, space, checked, DEFAULT_TRIALS, 0, WorkerPlan(workers=1))
    finally:
        child.close()
