"""A search from Python: `tmsearch.search`, and the studies that there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search import study as studies_of
from search.space.search_space import Space
from search.storage.database import Storage, open_storage
from tmsearch.api import work
from tmsearch.api.errors import InputError, one_line_errors
from tmsearch.api.follow import Callbacks
from tmsearch.api.plan import Plan, plan_of
from tmsearch.api.records import Rung, Trial
from tmsearch.api.status import Status
from tmsearch.api.study import Study
from tmsearch.api.work import Progress
from tmsearch.cli import arguments
from tmsearch.cli.services.knobs import load_space, space_of
from tmsearch.cli.services.runs.search import forms_of, plan_space, run_space
from tmsearch.cli.services.runs.workers import WorkerPlan


def search(
    space: str | os.PathLike[str] | Mapping[str, Any],
    *,
    trials: int | None = None,
    timeout: float | str | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    set: Sequence[str] = (),
    workers: int | None = None,
    on: str = "local",
    engine: Mapping[str, Any] | None = None,
    track: Sequence[str] | None = None,
    price: float | None = None,
    notify: str | None = None,
    on_rung: Callable[[Rung], object] | None = None,
    on_trial: Callable[[Trial], object] | None = None,
    on_end: Callable[[Status], object] | None = None,
    progress: Progress = "auto",
) -> Study:
    """Search the best fine-tuning recipe, as `tmsearch run` does: start the study of a space, or continue it.

    It returns once every configuration has ended, the time is up, or somebody stopped the study. Trainings run in
    processes of their own, started by name and not by a fork: a call needs no `if __name__ == "__main__"`, and this
    process imports no torch. The interrupt button, or Ctrl-C, finishes the step, saves, and raises StudyInterrupted, a
    KeyboardInterrupt; the same call continues. In another thread than the main one no signal arrives: `Study.stop`
    ends the work there.

    Args:
        space: a space file's path, or the same as a mapping: study, data, budget, train, search, start.
        trials: the study's total number of configurations, not "that many more"; None: as before, at first 20.
        timeout: save and return after so many seconds, or "90s", "5m", "2h".
        storage: the database's URL, else TMSEARCH_STORAGE, else sqlite:///studies/tmsearch.db.
        study_name: another name than the space's: a study beside it. The same name continues.
        seed: of sampling and training; None: as before, at first 0.
        set: changes of the space, as "train.batch_size=8".
        workers: how many train at the same time; None: one a GPU, one on a CPU.
        on: what starts the workers: local, slurm or ray.
        engine: options of slurm or ray, as {"partition": "gpu"}.
        track: trackers to mirror to: trackio, wandb, mlflow, none; None: as before, at first TMSEARCH_TRACK.
        price: of one worker, in dollars an hour: say the cost.
        notify: at the end, however it ends, POST a summary to this URL, as Slack, Mattermost and others take it, or
            show it on the "desktop"; None: as TMSEARCH_NOTIFY says. A URL may be a secret. What becomes of the notice
            changes nothing.
        on_rung: called at each evaluation, in this process and thread. A callback that raises ends the search as the
            interrupt button does, and its error is raised.
        on_trial: called as a trial is pruned, has finished or failed.
        on_end: called at the end, however it ends but by an error.
        progress: "auto": a live page and curves in a notebook, the command's lines elsewhere; "notebook", "lines",
            or False for nothing.

    Raises:
        InputError: a person's mistake, in one line; nothing was written.
        RunFailedError: the run failed, or no configuration has a result.
        StudyInterrupted: a signal ended the search; everything is kept.
    """
    with one_line_errors():
        database = open_storage(storage)
        forms = forms_of(_written(space, database, set, study_name))
        study = Study(database, forms.kept.study)
        follow = work.follow_options(Callbacks(on_rung, on_trial, on_end), progress, price, notify)
        plan = work.worker_plan(workers, on, engine, follow.price)
        options = work.search_options(trials, timeout, seed, plan, track)
        work.work(study, database, lambda view: run_space(database, forms, options, view), follow)
        return study


def plan(
    space: str | os.PathLike[str] | Mapping[str, Any],
    *,
    trials: int | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    set: Sequence[str] = (),
    gpu: float | None = None,
    price: float | None = None,
) -> Plan:
    """Check space, data, models and disk, and say what a search would do, as `tmsearch run --dry-run` does.

    Nothing is trained, and nothing written. What a confirmation would do, `Study.plan_confirmation` says.

    Args:
        space: as of `search`, like what is not told here.
        trials: the study's total number of configurations; None: 20.
        storage: the database's URL.
        study_name: another name than the space's.
        seed: of sampling and training.
        set: changes of the space.
        gpu: plan for a GPU of so many GB, 0 for none; None: for this machine's.
        price: of one worker, in dollars an hour: say the cost.

    Raises:
        InputError: a person's mistake, in one line.
        RunFailedError: the check of data and models failed.
    """
    with one_line_errors():
        database = open_storage(storage)
        forms = forms_of(_written(space, database, set, study_name))
        gigabytes = work.checked("gpu", arguments.gigabytes, gpu)
        workers = WorkerPlan(price=work.checked("price", arguments.dollars, price))
        options = work.search_options(trials, None, seed, workers, None)
        planned = plan_space(database, forms, options, gigabytes)
        return plan_of(forms.kept.study, database.display_name, planned, "tmsearch.search")


def _written(
    space: str | os.PathLike[str] | Mapping[str, Any], database: Storage, set: Sequence[str], study_name: str | None
) -> Space:
    """The space as the caller wrote it."""
    if isinstance(space, Mapping):
        return space_of(space, set, study_name)
    if not os.path.exists(space) and os.fspath(space) in studies_of.names(database):
        raise InputError(f"{space}: no such file, but a study; tmsearch.open_study({space!r}).resume() continues")
    return load_space(os.fspath(space), set, study_name)


def open_study(name: str, *, storage: str | None = None) -> Study:
    """A study that exists.

    Args:
        name: the study's.
        storage: the database's URL, else TMSEARCH_STORAGE, else sqlite:///studies/tmsearch.db.

    Raises:
        InputError: there is none of this name.
    """
    with one_line_errors():
        database = open_storage(storage)
        studies_of.open_study(database, name)
        return Study(database, name)


def studies(*, storage: str | None = None) -> list[str]:
    """The names of all studies in a storage, as `tmsearch list` prints them; raises InputError."""
    with one_line_errors():
        return studies_of.names(open_storage(storage))
