"""A search from Python: `tmsearch.search`, and the studies that there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search import study as studies_of
from search.storage.database import open_storage
from tmsearch.api import work
from tmsearch.api.errors import InputError, one_line_errors
from tmsearch.api.follow import Callbacks
from tmsearch.api.records import Rung, Trial
from tmsearch.api.status import Status
from tmsearch.api.study import Study
from tmsearch.api.work import Progress
from tmsearch.cli.services.knobs import load_space, space_of
from tmsearch.cli.services.runs.search import forms_of, run_space


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
        if isinstance(space, Mapping):
            written = space_of(space, set, study_name)
        elif not os.path.exists(space) and os.fspath(space) in studies_of.names(database):
            raise InputError(f"{space}: no such file, but a study; tmsearch.open_study({space!r}).resume() continues")
        else:
            written = load_space(os.fspath(space), set, study_name)
        forms = forms_of(written)
        study = Study(database, forms.kept.study)
        options = work.search_options(trials, timeout, seed, work.worker_plan(workers, on, engine), track)
        callbacks = Callbacks(on_rung, on_trial, on_end)
        work.work(study, database, lambda view: run_space(database, forms, options, view), callbacks, progress)
        return study


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
