"""The ledger's view in Optuna: one trial a configuration, with its whole curve and its attributes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.dashboard.annotator import Annotator
from search.dashboard.artifacts import ArtifactFolder
from search.dashboard.notes import leave_note, leave_study_note, name_value
from search.errors import StorageUnavailableError
from search.optuna_logging import quiet_optuna
from search.process_id import ProcessId
from search.records import BAD_PARAMETERS, Configuration
from search.samplers.optuna_space import MEMORY_CONSTRAINT, can_hold, to_distributions
from search.space.search_space import Space
from search.storage.claims import Ledger
from search.storage.reader import LEASE_SECONDS, clock, study_row
from search.storage.schema import configurations, studies

# The user attribute that ties a trial to its configuration. Optuna's own number may differ: a trial deleted or
# told by a person in the dashboard gets a successor.
CONFIGURATION = "configuration"
SUCCEEDS = "succeeds_trial"
FACTOR = "{}_times_recommended"
MANY = 20  # trials to tell of at once: it takes long enough to say so
T = TypeVar("T")


class Publisher:
    """Brings the Optuna study to what the ledger says; may be killed anywhere and called again.

    Notes and artifacts are the curator's; without one there are none.
    """

    def __init__(
        self, ledger: Ledger, space: Space, notice: Callable[[str], None], annotator: Annotator | None = None
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._notice = notice
        self._curator = annotator
        self._me = ProcessId.current()

    def publish(self) -> bool:
        """Publish every configuration that changed. False: another worker is at it and may not have seen them all."""
        history = self._ledger.history()
        due = [one for one in history if one.published < one.revision and one.drawn is not None]
        if not due:
            return True
        if not self._lease(LEASE_SECONDS):
            return False
        try:
            study, trials = self._study()
            if self._curator is not None:
                self._curator.open(history)
                if sum(one.ended for one in due) >= MANY:
                    self._notice(f"notes, pictures and sounds of {sum(one.ended for one in due)} trials are made")
                self._introduce(study, self._curator)
            for one in due:
                if not self._lease(LEASE_SECONDS):
                    return False  # it took so long that another worker is at it
                self._one(study, trials.get(one.number), one)
                self._done(one)
        finally:
            if self._curator is not None:
                self._curator.close()
            self._lease(0.0)
            self._ledger.storage.close()
        return True

    def finish(self) -> None:
        """Publish what is left when a worker leaves; waits a little for another one that is at it."""
        for _ in range(50):
            if self.publish():
                return
            time.sleep(0.1)

    def check(self) -> bool:
        """Notice what a person changed in the dashboard, and publish it again as the ledger has it.

        False: another worker publishes just now, and looks itself.
        """
        history = [one for one in self._ledger.history() if one.published]
        if not history:
            return True
        if not self._lease(LEASE_SECONDS):
            return False
        try:
            self._republish(self._changed(history))
        finally:
            self._lease(0.0)
        return True

    def _changed(self, history: list[Configuration]) -> list[int]:
        """The published ones that Optuna no longer has, or has otherwise."""
        if self._ledger.study not in optuna.get_all_study_names(self._ledger.storage.optuna):
            self._notice("the published study was deleted in the dashboard; it is published again from the ledger")
            return [one.number for one in history]
        _, trials = self._study()
        lost = [one.number for one in history if one.number not in trials]
        told = [
            one.number
            for one in history
            if one.number in trials
            and one.published == one.revision
            and trials[one.number].state.is_finished()
            and trials[one.number].state != _final_state(one)
        ]
        if lost:
            self._notice(f"deleted in the dashboard, published again from the ledger: {_listed(lost)}")
        if told:
            self._notice(f"told in the dashboard, the ledger goes on in a successor trial: {_listed(told)}")
        return lost + told

    def _republish(self, numbers: list[int]) -> None:
        if not numbers:
            return
        with self._ledger.storage.write() as connection:
            study = sa.select(studies.c.id).where(studies.c.name == self._ledger.study).scalar_subquery()
            here = (configurations.c.study_id == study) & configurations.c.number.in_(numbers)
            connection.execute(sa.update(configurations).where(here).values(published=0))

    def _lease(self, seconds: float) -> bool:
        """Become the study's only publisher for some seconds, or (0) stop being it. False: somebody else is."""
        with self._ledger.storage.read() as connection:
            if self._taken(connection):  # most times, with many workers: nobody's writing waits for this
                return False
        with self._ledger.storage.write() as connection:
            study_row(connection, self._ledger.study, lock=True)
            if self._taken(connection):
                return False
            now = clock(connection)
            values = {"publisher": str(self._me) if seconds else None, "publisher_until": now + seconds}
            connection.execute(sa.update(studies).where(studies.c.name == self._ledger.study).values(**values))
            return True

    def _taken(self, connection: sa.Connection) -> bool:
        row = study_row(connection, self._ledger.study)
        holder = ProcessId.parse(row.publisher or "")
        if not holder or holder == self._me or (row.publisher_until or 0) <= row.now:
            return False
        return not holder.known_dead()

    def _study(self) -> tuple[optuna.Study, dict[int, FrozenTrial]]:
        """The published study and, by configuration, its latest trial."""
        storage = self._ledger.storage.optuna
        with quiet_optuna():
            study = optuna.create_study(
                storage=storage, study_name=self._ledger.study, direction="minimize", load_if_exists=True
            )
        record = self._ledger.record()
        wanted = {"space": dict(record.space), "fingerprint": record.fingerprint, "tmsearch": record.version}
        known = study.user_attrs
        for key, value in wanted.items():
            if known.get(key) != value:
                study.set_user_attr(key, value)
        trials = {}
        for trial in study.get_trials(deepcopy=False):
            number = trial.user_attrs.get(CONFIGURATION)
            if isinstance(number, int):
                trials[number] = trial
        return study, trials

    def _one(self, study: optuna.Study, trial: FrozenTrial | None, one: Configuration) -> None:
        storage = self._ledger.storage.optuna
        final = _final_state(one)
        if trial is not None and trial.state.is_finished():
            if trial.state == final and trial.intermediate_values == _curve(one):
                return
            trial_id = self._create(study, one, succeeds=trial.number)
        elif trial is None:
            trial_id = self._create(study, one, succeeds=None)
        else:
            trial_id = trial._trial_id
        known = storage.get_trial(trial_id)
        for step, value in _curve(one).items():
            if step not in known.intermediate_values:
                storage.set_trial_intermediate_value(trial_id, step, value)
        for key, attribute in attributes(one).items():
            if known.user_attrs.get(key) != attribute:
                storage.set_trial_user_attr(trial_id, key, attribute)
        for key, limit in _limits(one).items():
            if key not in known.system_attrs:
                storage.set_trial_system_attr(trial_id, key, limit)
        if final is not None:
            if self._curator is not None:
                self._explain(study, trial_id, one, self._curator)
            values = None if one.value is None or final == TrialState.FAIL else [one.value]
            storage.set_trial_state_values(trial_id, final, values)

    def _introduce(self, study: optuna.Study, annotator: Annotator) -> None:
        name_value(study, annotator.value)
        note = self._asked(f"study {self._ledger.study}", annotator.study)
        if note is not None:
            leave_study_note(study, note)

    def _explain(self, study: optuna.Study, trial_id: int, one: Configuration, annotator: Annotator) -> None:
        """Note and artifacts, before the trial is told: after that it takes none."""
        account = self._asked(f"trial {one.number}", lambda: annotator.annotate(one))
        if account is not None:
            ArtifactFolder(self._ledger.storage, self._ledger.record()).upload(trial_id, account.attachments)
            leave_note(optuna.Trial(study, trial_id), account.note)

    def _asked(self, what: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except StorageUnavailableError:
            raise
        except Exception as error:  # a search must not end for want of a picture, whatever went wrong with it
            self._notice(f"{what} is published without its note: {type(error).__name__}: {error}")
            return None

    def _create(self, study: optuna.Study, one: Configuration, *, succeeds: int | None) -> int:
        params, space = self._params(one)
        # First of all its own number, in the transaction that makes the trial: a kill leaves none without it.
        attrs: dict[str, Any] = {CONFIGURATION: one.number, **attributes(one)}
        if succeeds is not None:
            attrs[SUCCEEDS] = succeeds
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=space,
            user_attrs=attrs,
            intermediate_values=_curve(one),
        )
        return self._ledger.storage.optuna.create_new_trial(study._study_id, template_trial=template)

    def _params(self, one: Configuration) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Searched values under their own names; a factor on the recommended value under a name that says so."""
        params, space = {}, {}
        assert one.drawn is not None
        for name, dist in to_distributions(self._space.search).items():
            if name not in one.drawn or not can_hold(dist, one.drawn[name]):
                continue  # added by hand, outside the range: it stands in the attributes
            value = one.drawn[name]
            shown = FACTOR.format(name) if getattr(self._space.search[name], "times", None) else name
            params[shown], space[shown] = value, dist
        return params, space

    def _done(self, one: Configuration) -> None:
        with self._ledger.storage.write() as connection:
            study = sa.select(studies.c.id).where(studies.c.name == self._ledger.study).scalar_subquery()
            here = (configurations.c.study_id == study) & (configurations.c.number == one.number)
            connection.execute(sa.update(configurations).where(here).values(published=one.revision))


def _curve(one: Configuration) -> dict[int, float]:
    return {step: value for step, value in one.curve.items() if math.isfinite(value)}


def _final_state(one: Configuration) -> TrialState | None:
    """How Optuna is told that a configuration ended; None while it has not."""
    if not one.ended:
        return None
    if one.state == "failed":
        return TrialState.PRUNED if one.failure in BAD_PARAMETERS else TrialState.FAIL
    return TrialState.COMPLETE if one.state == "finished" else TrialState.PRUNED


def _limits(one: Configuration) -> Mapping[str, float]:
    """What Optuna calls constraints, as system attributes: above 0 is infeasible. One that memory cannot hold is."""
    if one.failure != "oom":
        return {}
    probe = create_trial(state=TrialState.RUNNING)
    probe.set_constraint(MEMORY_CONSTRAINT, 1.0)
    return dict(probe.system_attrs)


def attributes(one: Configuration) -> Mapping[str, Any]:
    """What a dashboard shows of a trial beside its parameters: resolved values, costs, steps, reason of the end."""
    shown: dict[str, Any] = {"origin": one.origin, "steps": one.steps}
    shown.update(one.params or {})
    for key, value in one.metrics.items():
        if isinstance(value, (int, float, str, bool)) and not key.endswith("_seconds"):
            shown[key] = value
    for cost in ("train_seconds", "eval_seconds"):
        shown[cost] = round(one.total(cost), 3)
    if one.ended and one.reason:
        shown["reason"] = one.reason
    return shown


def _listed(numbers: list[int]) -> str:
    return "configuration " + ", ".join(str(number) for number in sorted(numbers))
