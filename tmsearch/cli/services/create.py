"""A new study: its data and models checked by the training process, then its rows in the ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

from search import study
from search.errors import RunError, UserError
from search.execution.child_process import ChildExitError, ChildProcess, run_job
from search.execution.messages import Checked, CheckJob, Failure
from search.samplers.earlier import FACT
from search.space.parsing import SECTIONS
from search.space.search_space import Space
from search.storage.database import Storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.earlier import known_to
from tmsearch.cli.services.plan import candidates
from tmsearch.cli.services.run_study import new_trial_process
from tmsearch.cli.services.runs.workers import ONE_WORKER, WorkerPlan
from tmsearch.formatting import file_size
from tmsearch.trial import facts
from tmsearch.trial.facts import ModelNeeds
from tmsearch.version import code_version

DEFAULT_TRIALS = 20


def check_space(child: ChildProcess, space: Space, *, measure: bool, models: bool = True) -> Checked:
    """Let the training process look at the data and models of a space.

    Args:
        child: a training process.
        space: what would be searched.
        measure: whether to measure this machine's matrix rate as well, for an estimate of the time.
        models: whether to look at the models, which may mean to ask the hub.

    Raises:
        UserError: the data or a model is not as it should be.
        RunError: the process ended without an answer.
    """
    try:
        models_to_check = tuple(candidates(space)) if models else ()
        answer = run_job(child, CheckJob(space.data, models_to_check, measure, space.budget.objective))
    except ChildExitError as error:
        last_line = child.stderr_lines[-1].strip() if child.stderr_lines else "it printed nothing"
        raise RunError(f"the check of data and models ended: {error}: {last_line}") from None
    if isinstance(answer, Checked):
        return answer
    if not isinstance(answer, Failure):
        raise RunError(f"unexpected answer {answer}")
    if answer.failure in ("input", "machine"):
        in_file = answer.reason.startswith(tuple(f"{section}." for section in SECTIONS))
        raise UserError(f"{space.source}: {answer.reason}" if in_file else answer.reason)
    raise RunError(answer.reason)


def check_disk(studies_folder: Path, checked: Checked) -> None:
    """Raise UserError where two checkpoints do not fit: the one being written and the one before."""
    folder = next(folder for folder in (studies_folder, *studies_folder.parents) if folder.exists())
    needed = 2 * max(ModelNeeds.from_json(needs).checkpoint_bytes for needs in checked.models.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {file_size(free)} free, a trial's checkpoints need {file_size(needed)}; "
            "make room, or set TMSEARCH_STUDIES to another disk"
        )


def create_study(
    storage: Storage, space: Space, checked: Checked, workers: WorkerPlan, trials: int = DEFAULT_TRIALS, seed: int = 0
) -> Ledger:
    """Enter a checked space into the storage as a new study."""
    study_facts = {facts.DATA: checked.data, facts.THREADS: workers.threads}
    known = known_to(storage, space, checked.data)
    if known is not None:
        study_facts[FACT] = known.to_json()
    return study.create(storage, space, seed=seed, trials=trials, version=code_version(), facts=study_facts)


def check_and_create(storage: Storage, space: Space) -> Ledger:
    """A new study of data that has been checked, and of models that its first run will check.

    Raises as `check_space` does.
    """
    storage.check_writable()
    study.check_unused(storage, space.study)
    child = new_trial_process()
    try:
        checked = check_space(child, space, measure=False, models=False)
        return create_study(storage, space, checked, ONE_WORKER)
    finally:
        child.close()
