"""The ledger's view in Optuna: one trial a configuration, with its whole curve and its attributes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.dashboard.annotator import Annotator, UpdatingAnnotator
from search.dashboard.artifacts import ArtifactFolder
from search.dashboard.frozen_trial import (
    attributes,
    curve,
    final_state,
    published_name,
    published_state,
    published_value,
    system_attributes,
)
from search.dashboard.notes import bases, replace_note, set_value_name, with_basis, write_note, write_study_note
from search.dashboard.optuna_batch import OptunaBatch, PublishedTrial
from search.dashboard.published_study import CONFIGURATION, MARK, bears_mark
from search.dashboard.publisher_lease import RENEWED_AFTER, PublisherLease, marks
from search.errors import StorageUnavailableError, UserError, first_line
from search.imported import compares
from search.optuna_logging import quiet_optuna
from search.records import IMPORTED, Configuration, StudyRecord
from search.samplers.optuna_space import can_hold, to_distributions
from search.space.search_space import Space
from search.storage.ledger import Ledger
from search.storage.postgres import DEFERRED

SUCCEEDS = "succeeds_trial"
AT_ONCE = 20  # configurations that are read and written together
WRITTEN_AFTER = 2.0  # seconds at the latest: a person who edits a note meanwhile is overwritten
MANY = 20  # trials to annotate at once: it takes long enough to tell a person
T = TypeVar("T")


class Publisher:
    """Brings the Optuna study to what the ledger says; may be killed anywhere and called again.

    Args:
        notice: Shows one line to a person.
        annotator: Makes notes and attachments; without it there are none.
    """

    def __init__(
        self, ledger: Ledger, space: Space, notice: Callable[[str], None], annotator: Annotator | None = None
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._notice = notice
        self._annotator = annotator
        self._is_delay_reported = False
        self._is_study_noted = False
        self._renewed = 0.0  # when the turn to publish was last taken, by the monotonic clock
        # Over a connection of its own: a claim never waits for what is published.
        self._beside = ledger.beside()
        self._lease = PublisherLease(self._beside)
        self._artifacts = ArtifactFolder(ledger.storage, ledger.record())  # of one round of publishing

    def report_delay(self, error: OSError) -> None:
        """Tell once that files of the published study cannot be written: publishing waits, training does not."""
        if not self._is_delay_reported:
            self._is_delay_reported = True
            where = f"{error.filename}: " if error.filename else ""
            reason = f"{where}{error.strerror or first_line(error)}"
            self._notice(f"{reason}; publishing to Optuna waits, training continues")

    def publish(self) -> bool:
        """Publish every configuration that changed. False: some may remain, as another worker is publishing."""
        is_due, is_taken = self._lease.look(self._ledger)
        if not is_due:
            return True
        if is_taken or not self._lease.take():
            return False
        self._renewed = time.monotonic()
        try:
            history, record = self._beside.snapshot()
            self._artifacts = ArtifactFolder(self._ledger.storage, record)
            due = [
                configuration
                for configuration in history
                if configuration.published < configuration.revision and configuration.drawn is not None
            ]
            if self._annotator is not None:
                self._annotator.open(history, self._keep_turn)
                ended = sum(configuration.ended for configuration in due)
                if ended >= MANY:
                    self._notice(f"making notes, pictures and sounds of {ended} trials")
            batch = self._open(record)
            if not self._update_notes(batch, history):
                return False
            if not self._publish_trials(batch, due):
                return False
        finally:
            if self._annotator is not None:
                self._annotator.close()
            self._lease.take(0.0)
            self._beside.storage.close_beside()
        return True

    def _keep_turn(self) -> bool:
        """Renew the lease where it is time to. False: it took so long that another worker publishes now."""
        if time.monotonic() - self._renewed > RENEWED_AFTER:
            if not self._lease.take():
                return False
            self._renewed = time.monotonic()
        return True

    def _publish_trials(self, batch: OptunaBatch, due: Sequence[Configuration]) -> bool:
        """Publish them, some at a time: each time is a few transactions. False: some remain."""
        for start in range(0, len(due), AT_ONCE):
            if not self._keep_turn():
                return False
            some = due[start : start + AT_ONCE]
            try:
                self._publish_some(batch, some)
            except optuna.exceptions.UpdateFinishedTrialError:
                return False  # a person finished it in the dashboard meanwhile: the next call makes a successor
        return True

    def _publish_some(self, batch: OptunaBatch, due: Sequence[Configuration]) -> None:
        latest = batch.latest()
        batch.load([latest[configuration.number] for configuration in due if configuration.number in latest])
        if self._annotator is not None and not self._is_study_noted:
            self._write_study_note(batch, self._annotator)
        trials = self._trials_to_write(batch, due)
        written = time.monotonic()
        done: dict[int, int] = {}
        for configuration in due:
            trial = trials.get(configuration.number)
            if trial is not None:
                self._publish_trial(batch, trial, configuration)
            done[configuration.number] = configuration.revision
            if time.monotonic() - written > WRITTEN_AFTER:
                batch.write(marks(self._ledger.study, done))
                done = {}
                written = time.monotonic()
        batch.write(marks(self._ledger.study, done))
        self._is_study_noted = True

    def _trials_to_write(self, batch: OptunaBatch, due: Sequence[Configuration]) -> dict[int, PublishedTrial]:
        """By configuration, its trial that has not ended, made if need be; none where nothing is to be done."""
        latest = batch.latest()
        trials = {}
        templates = []
        for configuration in due:
            trial = latest.get(configuration.number)
            if trial is None:
                templates.append(self._template(configuration, succeeds=None))
            elif not trial.state.is_finished():
                trials[configuration.number] = trial
            elif trial.state == final_state(configuration) and _is_curve(trial, configuration):
                continue
            elif configuration.origin != IMPORTED:  # else by an older version, with values that do not compare
                templates.append(self._template(configuration, succeeds=trial.number))
        for trial in batch.create(templates, CONFIGURATION):
            trials[trial.user_attrs[CONFIGURATION]] = trial
        return trials

    def _update_notes(self, batch: OptunaBatch, history: Sequence[Configuration]) -> bool:
        """Once all have ended, bring their notes up to what the study knows now. False: another worker publishes."""
        annotator = self._annotator
        if not isinstance(annotator, UpdatingAnnotator) or not all(trial.ended for trial in history):
            return True
        batch.load([], all_notes=True)
        known = bases(batch.owner())
        latest = batch.latest()
        renewed = time.monotonic()
        for configuration in history:
            trial = latest.get(configuration.number)
            if trial is None or configuration.published < configuration.revision:
                continue
            basis = annotator.basis(configuration)
            if known.get(trial.trial_id, basis) == basis:
                continue
            make = functools.partial(annotator.annotate, configuration)
            annotation = self._try_to_make(f"trial {configuration.number}", make)
            if annotation is not None:
                replace_note(batch.owner(trial), annotation.note, basis)
            if time.monotonic() - renewed > WRITTEN_AFTER:
                batch.write()
                if not self._lease.take():
                    return False
                renewed = time.monotonic()
        batch.write()
        return True

    def finish(self) -> None:
        """Publish what remains when a worker leaves; waits a little for another one that is publishing."""
        for _ in range(50):
            if self.publish():
                return
            time.sleep(0.1)

    def check(self) -> bool:
        """Notice what a person changed in the dashboard, so that it is published again as the ledger has it.

        False: another worker is publishing, and checks itself.
        """
        history = [configuration for configuration in self._beside.history() if configuration.published]
        if not history:
            return True
        if not self._lease.take():
            return False
        try:
            changed = self._changed(history)
            with self._beside.storage.write() as connection:
                for statement in marks(self._ledger.study, dict.fromkeys(changed, 0)):
                    connection.execute(statement, execution_options={DEFERRED: True})
        finally:
            self._lease.take(0.0)
            self._beside.storage.close_beside()
        return True

    def _changed(self, history: list[Configuration]) -> list[int]:
        """The published configurations that Optuna no longer has, or has in another state."""
        batch = OptunaBatch.open(self._beside.storage, self._ledger.study, CONFIGURATION)
        if batch is None:
            self._notice("the published study was deleted in the dashboard; it is published again from the ledger")
            return [configuration.number for configuration in history]
        trials = batch.latest()
        deleted = []
        finished_by_hand = []
        in_another_state = []  # its worker died; or somebody asked Optuna for a waiting trial
        for configuration in history:
            trial = trials.get(configuration.number)
            if trial is None:
                deleted.append(configuration.number)
            elif (
                configuration.published == configuration.revision
                and configuration.origin != IMPORTED
                and trial.state.is_finished()
                and trial.state != final_state(configuration)
            ):
                finished_by_hand.append(configuration.number)
            elif not trial.state.is_finished() and trial.state != published_state(configuration):
                in_another_state.append(configuration.number)
        if deleted:
            self._notice(f"deleted in the dashboard, published again from the ledger: {_listed(deleted)}")
        if finished_by_hand:
            numbers = _listed(finished_by_hand)
            self._notice(f"finished in the dashboard, continued from the ledger in a successor trial: {numbers}")
        return deleted + finished_by_hand + in_another_state

    def _open(self, record: StudyRecord) -> OptunaBatch:
        """The published study, made if need be."""
        batch = OptunaBatch.open(self._beside.storage, record.name, CONFIGURATION)
        if batch is None:
            with quiet_optuna():
                optuna.create_study(
                    storage=self._ledger.storage.optuna,
                    study_name=record.name,
                    direction="minimize",
                    load_if_exists=True,
                )
            self._ledger.storage.close_optuna()
            self._is_study_noted = False
            batch = OptunaBatch.open(self._beside.storage, record.name, CONFIGURATION)
            assert batch is not None
        if not bears_mark(batch.user_attrs, bool(batch.trials)):
            raise UserError(
                f"{record.name}: an Optuna study of this name that tmsearch did not make is in "
                f"{self._ledger.storage.display_name}; rename or delete it, then `tmsearch resume {record.name}`"
            )
        wanted = {MARK: record.version, "space": dict(record.space), "fingerprint": record.fingerprint}
        for key, value in wanted.items():
            if batch.user_attrs.get(key) != value:
                batch.set_study_user_attr(key, value)
        batch.write()  # a trial of a study without the mark would be taken for a person's
        return batch

    def _publish_trial(self, batch: OptunaBatch, trial: PublishedTrial, configuration: Configuration) -> None:
        """Bring a trial that has not ended to what the ledger says."""
        self._write_attributes(batch, trial, configuration)
        target_state = published_state(configuration)
        if not target_state.is_finished():
            if trial.state != target_state:
                batch.set_state(trial, target_state)
            return
        if self._annotator is not None:
            self._annotate(batch, trial, configuration, self._annotator)
        value = None if target_state == TrialState.FAIL else configuration.value
        if configuration.rungs and not compares(configuration, configuration.rungs[-1]):
            value = None
        batch.set_state(trial, target_state, None if value is None else published_value(value))

    def _write_attributes(self, batch: OptunaBatch, trial: PublishedTrial, configuration: Configuration) -> None:
        """Write the values and attributes that the trial lacks."""
        for step, value in curve(configuration).items():
            if step not in trial.intermediate_values:
                batch.set_intermediate_value(trial, step, value)
        for key, attribute in attributes(configuration).items():
            if trial.user_attrs.get(key) != attribute:
                batch.set_user_attr(trial, key, attribute)
        for key, attribute in system_attributes(configuration, self._params(configuration)[0]).items():
            if trial.system_attrs.get(key) != attribute:
                batch.set_system_attr(trial, key, attribute)

    def _write_study_note(self, batch: OptunaBatch, annotator: Annotator) -> None:
        set_value_name(batch.owner(), annotator.value_name)
        note = self._try_to_make(f"study {self._ledger.study}", lambda: annotator.study_note(batch.study_id))
        if note is not None:
            write_study_note(batch.owner(), note)

    def _annotate(
        self, batch: OptunaBatch, trial: PublishedTrial, configuration: Configuration, annotator: Annotator
    ) -> None:
        """Write note and artifacts before the trial is finished: after that it takes none."""
        annotation = self._try_to_make(f"trial {configuration.number}", lambda: annotator.annotate(configuration))
        if annotation is not None:
            names = self._artifacts.upload(trial.trial_id, annotation.attachments, trial.system_attrs)
            for key, meta in names.items():
                batch.set_system_attr(trial, key, meta)
            note = annotation.note
            if isinstance(annotator, UpdatingAnnotator):
                note = with_basis(note, annotator.basis(configuration))
            write_note(batch.owner(trial), note)

    def _try_to_make(self, subject: str, make: Callable[[], T]) -> T | None:
        """What the annotator made; None, and a notice, where it failed: a search must not end for want of a picture."""
        try:
            return make()
        except StorageUnavailableError:
            raise
        except Exception as error:
            self._notice(f"{subject} is published without its note: {type(error).__name__}: {error}")
            return None

    def _template(self, configuration: Configuration, *, succeeds: int | None) -> FrozenTrial:
        """A trial that stands for the configuration; it has not ended, so that it takes notes and artifacts."""
        params, ranges = self._params(configuration)
        user_attrs: dict[str, Any] = {CONFIGURATION: configuration.number, **attributes(configuration)}
        if succeeds is not None:
            user_attrs[SUCCEEDS] = succeeds
        state = published_state(configuration)
        return create_trial(
            state=TrialState.RUNNING if state.is_finished() else state,
            params=params,
            distributions=ranges,
            user_attrs=user_attrs,
            intermediate_values=curve(configuration),
            system_attrs=dict(system_attributes(configuration, params)),
        )

    def _params(self, configuration: Configuration) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Searched values and their ranges, by the names that the published study has for them."""
        params = {}
        ranges = {}
        assert configuration.drawn is not None
        for name, distribution in to_distributions(self._space.search).items():
            if name not in configuration.drawn or not can_hold(distribution, configuration.drawn[name]):
                continue  # added by hand, outside the range: it stands in the attributes
            published = published_name(self._space, name)
            params[published] = configuration.drawn[name]
            ranges[published] = distribution
        return params, ranges


def _is_curve(trial: PublishedTrial, configuration: Configuration) -> bool:
    """Whether the trial has the configuration's curve; versions before 0.2.0 published it in full."""
    published = {step: published_value(value) for step, value in trial.intermediate_values.items()}
    return published == curve(configuration)


def _listed(numbers: list[int]) -> str:
    return "configuration " + ", ".join(str(number) for number in sorted(numbers))
