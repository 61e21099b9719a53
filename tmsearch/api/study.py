"""A study from Python: how it stands, its trials, its best, its report, and what comes after the search."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import study as studies
from search.storage.database import Storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.api import work
from tmsearch.api.errors import InputError, one_line_errors
from tmsearch.api.follow import Callbacks
from tmsearch.api.records import Rung, Trial, column_names
from tmsearch.api.status import Status, best_of, status_of, table_knobs, trials_of
from tmsearch.api.work import Progress
from tmsearch.cli import arguments
from tmsearch.cli.services.run_study import StudyView
from tmsearch.cli.services.runs.search import resume

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

    from tmsearch.api.confirmation import Confirmation
    from tmsearch.api.plan import Plan


class Study:
    """One search: made by `tmsearch.search`, found again by `tmsearch.open_study`.

    It holds no results: each look reads the database as it is now, so that a study which other processes work on can
    be watched.

    Attributes:
        name: the study's.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        self._storage = storage

    def __repr__(self) -> str:
        return f"Study({self.name!r}, storage={self.storage!r})"

    def _repr_html_(self) -> str:
        """The study's page in a notebook."""
        return self.status()._repr_html_()

    @property
    def storage(self) -> str:
        """The database's URL, without a password."""
        return self._storage.display_name

    def status(self, *, price: float | None = None) -> Status:
        """How the study stands, as `tmsearch status` prints it.

        Args:
            price: of one worker, in dollars an hour: say the cost.

        Raises:
            InputError: there is no such study any more, or the price is none.
        """
        return status_of(self._summary(), self.storage, work.checked("price", arguments.dollars, price))

    @property
    def trials(self) -> pandas.DataFrame | list[dict[str, Any]]:
        """A row a configuration: what `status --json` says of it, then its searched knobs; raises InputError.

        A pandas.DataFrame where pandas is installed, else a list of mappings.
        """
        summary = self._summary()
        knobs = table_knobs(summary)
        rows = [trial.row(knobs) for trial in trials_of(summary)]
        if importlib.util.find_spec("pandas") is None:
            return rows
        import pandas

        return pandas.DataFrame(rows, columns=[*column_names(), *knobs])

    @property
    def best(self) -> Trial:
        """The lowest value at the highest rung that any configuration reached, as `status` marks it.

        Raises:
            InputError: no configuration has a result yet.
        """
        best = best_of(self._summary())
        if best is None:
            raise InputError(f"{self.name}: no configuration has a result yet; `tmsearch resume {self.name}` continues")
        return best

    def curves(self) -> go.Figure:
        """Every configuration's curve by step, as a plotly figure; raises InputError."""
        from tmsearch.api.view import curves

        return curves.figure(self._summary())

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the page that `tmsearch report` writes: one HTML file that needs no network.

        Args:
            path: the file; None: STUDY-report.html.

        Returns:
            The file's path.

        Raises:
            InputError: it cannot be written, or is something else than a page of tmsearch.
        """
        from tmsearch.cli.services.report.apart import call_here
        from tmsearch.cli.services.report.page_file import write_study_page

        with one_line_errors():
            self._ledger()
            return write_study_page(self._storage, self.name, None if path is None else os.fspath(path), call_here)

    def resume(
        self,
        *,
        trials: int | None = None,
        timeout: float | str | None = None,
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
        """Continue with the space that the database holds, as `tmsearch resume` does; arguments as of `search`."""
        with one_line_errors():
            ledger = self._ledger()
            follow = work.follow_options(Callbacks(on_rung, on_trial, on_end), progress, price, notify)
            plan = work.worker_plan(workers, on, engine, follow.price)
            options = work.search_options(trials, timeout, None, plan, track)
            work.work(self, self._storage, lambda view: resume(ledger, options, view), follow)
        return self

    def stop(self) -> None:
        """Ask whoever works on the study to save and return, as `tmsearch stop` does; may be called in any thread."""
        with one_line_errors():
            self._ledger().request_stop()

    def confirm(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        folds: int | None = None,
        budget: float | str | None = None,
        test: bool = False,
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
    ) -> Confirmation:
        """Train the leaders and the default recipe again, and say whether the winner is real: `tmsearch confirm`.

        Args:
            top: leaders to race against the default recipe; None: as before, at first 3.
            seeds: trainings of each, other seeds each, on average; None: as before, at first 3.
            folds: reshuffled splits: so many disjoint validation sets in turn.
            budget: seconds, or "30m", "4h", to spend on it in all.
            test: then read the locked test split, once.
            workers: this and all else as of `search`.

        Raises:
            InputError: the options contradict an earlier plan, or the search has no result to confirm.
            RunFailedError: a training could not be run.
            StudyInterrupted: a signal ended it; the same call continues.
        """
        from tmsearch.api.confirmation import confirmation_of
        from tmsearch.cli.notice import verdict_notice
        from tmsearch.cli.services.confirmation import SUFFIX
        from tmsearch.cli.services.runs import confirm as races

        with one_line_errors():
            follow = work.follow_options(Callbacks(on_rung, on_trial, on_end), progress, price, notify)
            plan = work.worker_plan(workers, on, engine, follow.price)
            options = work.race_options(top, seeds, folds, budget, test, plan, track)

            def run(view: StudyView) -> int:
                return races.run(races.prepare(self._storage, self.name, options, view), options, view)

            confirming = Study(self._storage, self.name + SUFFIX)
            notice_text = functools.partial(verdict_notice, price=follow.price)
            work.work(confirming, self._storage, run, dataclasses.replace(follow, notice_text=notice_text))
            return confirmation_of(confirming, self._storage)

    def plan_confirmation(
        self,
        *,
        top: int | None = None,
        seeds: int | None = None,
        folds: int | None = None,
        budget: float | str | None = None,
        test: bool = False,
        workers: int | None = None,
        gpu: float | None = None,
        price: float | None = None,
    ) -> Plan:
        """Say what `confirm` would do, and what of it is done, as `tmsearch confirm --dry-run` does.

        Nothing is trained, and nothing written.

        Args:
            top: this, `seeds`, `folds`, `budget`, `test` and `workers` as of `confirm`.
            gpu: plan for a GPU of so many GB, at its predicted speed; None: at the speed of the search.
            price: of one worker, in dollars an hour: say the cost.

        Raises:
            InputError: the options contradict an earlier plan, or the search has no result to confirm.
            RunFailedError: the check of data and models failed.
        """
        from tmsearch.api.plan import plan_of
        from tmsearch.cli.services.confirmation import SUFFIX
        from tmsearch.cli.services.runs import confirm as races

        with one_line_errors():
            plan = work.worker_plan(workers, "local", None, work.checked("price", arguments.dollars, price))
            options = work.race_options(top, seeds, folds, budget, test, plan, None)
            gigabytes = work.checked("gpu", arguments.gigabytes, gpu)
            planned = races.plan_race(self._storage, self.name, options, gigabytes)
            return plan_of(self.name + SUFFIX, self.storage, planned, "Study.confirm")

    def export(self, path: str | os.PathLike[str] | None = None, *, trial: int | None = None) -> Path:
        """Write a configuration as a recipe for `tmsearch.train`, with its evidence, as `tmsearch export` does.

        Args:
            path: the file; None: STUDY-best.yaml.
            trial: this configuration's number; None: what a confirmation decided, else the best.

        Returns:
            The file's path.

        Raises:
            InputError: it cannot be written, or there is no such trial, or no result yet.
        """
        from tmsearch.cli.services import recipes
        from tmsearch.recipe import recipe_text

        with one_line_errors():
            number = work.checked("trial", arguments.number, trial)
            exported = recipes.export_recipe(self._storage, self.name, number)
            file = Path(path if path is not None else f"{self.name}-best.yaml")
            recipes.write_recipe(file, recipe_text(exported.recipe))
        return file

    def _ledger(self) -> Ledger:
        return studies.open_study(self._storage, self.name)

    def _summary(self) -> Summary:
        with one_line_errors():
            return studies.summarize(self._ledger())
