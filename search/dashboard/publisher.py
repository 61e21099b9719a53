"""The ledger's view in Optuna: one trial a configuration, with its whole curve and its attributes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.dashboard.annotator import Annotator, UpdatingAnnotator
from search.dashboard.artifacts import ArtifactFolder
from search.dashboard.frozen_trial import attributes, constraints, curve, final_state, published_name
from search.dashboard.notes import bases, replace_note, set_value_name, with_basis, write_note, write_study_note
from search.dashboard.published_trials import CONFIGURATION, PublishedTrial, published_trials
from search.errors import StorageUnavailableError, UserError, first_line
from search.imported import compares
from search.optuna_logging import quiet_optuna
from search.process_id import ProcessId
from search.records import IMPORTED, Configuration
from search.samplers.optuna_space import can_hold, to_distributions
from search.space.search_space import Space
from search.storage.database import Storage
from search.storage.ledger import Ledger
from search.storage.reader import LEASE_SECONDS, is_current, study_row
from search.storage.schema import configurations, studies

MARK = "tmsearch"  # the user attribute of a study that tmsearch published: the version that made it
SUCCEEDS = "succeeds_trial"
MARKED_AT_ONCE = 20  # configurations; what a kill leaves unmarked is compared again, and not written again
MARKED_AFTER = 2.0  # seconds at the latest
RENEWED_AFTER = LEASE_SECONDS / 4
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
        self._process = ProcessId.current()
        self._is_delay_reported = False
        self._artifacts: ArtifactFolder | None = None  # of one round of publishing
        self._created: int | None = None  # Optuna's id of the trial that was made last

    def report_delay(self, error: OSError) -> None:
        """Tell once that files of the published study cannot be written: publishing waits, training does not."""
        if not self._is_delay_reported:
            self._is_delay_reported = True
            where = f"{error.filename}: " if error.filename else ""
            reason = f"{where}{error.strerror or first_line(error)}"
            self._notice(f"{reason}; publishing to Optuna waits, training continues")

    def publish(self) -> bool:
        """Publish every configuration that changed. False: some may remain, as another worker is publishing."""
        history = self._ledger.history()
        due = [
            configuration
            for configuration in history
            if configuration.published < configuration.revision and configuration.drawn is not None
        ]
        if not due:
            return True
        if not self._lease(LEASE_SECONDS):
            return False
        try:
            study, trials = self._study()
            if self._annotator is not None:
                self._annotator.open(history)
                ended = sum(configuration.ended for configuration in due)
                if ended >= MANY:
                    self._notice(f"making notes, pictures and sounds of {ended} trials")
                self._write_study_note(study, self._annotator)
            if not self._update_notes(study, trials, history):
                return False
            if not self._publish_trials(study, trials, due):
                return False
        finally:
            if self._annotator is not None:
                self._annotator.close()
            self._artifacts = None
            self._lease(0.0)
            self._ledger.storage.close_optuna()
        return True

    def _publish_trials(
        self, study: optuna.Study, trials: Mapping[int, PublishedTrial], due: Sequence[Configuration]
    ) -> bool:
        """Publish them, and record it a batch at a time: each record is a transaction. False: some remain."""
        renewed = marked = time.monotonic()
        batch: list[Configuration] = []
        for configuration in due:
            if time.monotonic() - renewed > RENEWED_AFTER:
                if not self._lease(LEASE_SECONDS):
                    return False  # it took so long that another worker publishes now
                renewed = time.monotonic()
            try:
                self._publish_trial(study, self._read_trial(trials.get(configuration.number)), configuration)
            except optuna.exceptions.UpdateFinishedTrialError:
                self._mark_published(batch)
                return False  # a person finished it in the dashboard meanwhile: the next call makes a successor
            batch.append(configuration)
            if len(batch) >= MARKED_AT_ONCE or time.monotonic() - marked > MARKED_AFTER:
                self._mark_published(batch)
                batch = []
                marked = time.monotonic()
        self._mark_published(batch)
        return True

    def _update_notes(
        self, study: optuna.Study, trials: Mapping[int, PublishedTrial], history: Sequence[Configuration]
    ) -> bool:
        """Once all have ended, bring their notes up to what the study knows now. False: another worker publishes."""
        annotator = self._annotator
        if not isinstance(annotator, UpdatingAnnotator) or not all(trial.ended for trial in history):
            return True
        known = bases(study)
        for configuration in history:
            trial = trials.get(configuration.number)
            if trial is None or configuration.published < configuration.revision:
                continue
            basis = annotator.basis(configuration)
            if known.get(trial.trial_id, basis) == basis:
                continue
            if not self._lease(LEASE_SECONDS):
                return False
            make = functools.partial(annotator.annotate, configuration)
            annotation = self._try_to_make(f"trial {configuration.number}", make)
            if annotation is not None:
                replace_note(optuna.Trial(study, trial.trial_id), annotation.note, basis)
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
        history = [configuration for configuration in self._ledger.history() if configuration.published]
        if not history:
            return True
        if not self._lease(LEASE_SECONDS):
            return False
        try:
            changed = self._changed(history)
            if changed:
                self._set_published(dict.fromkeys(changed, 0))
        finally:
            self._lease(0.0)
        return True

    def _changed(self, history: list[Configuration]) -> list[int]:
        """The published configurations that Optuna no longer has, or has in another state."""
        if self._ledger.study not in optuna.get_all_study_names(self._ledger.storage.optuna):
            self._notice("the published study was deleted in the dashboard; it is published again from the ledger")
            return [configuration.number for configuration in history]
        _, trials = self._study()
        deleted = []
        finished_by_hand = []
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
        if deleted:
            self._notice(f"deleted in the dashboard, published again from the ledger: {_listed(deleted)}")
        if finished_by_hand:
            numbers = _listed(finished_by_hand)
            self._notice(f"finished in the dashboard, continued from the ledger in a successor trial: {numbers}")
        return deleted + finished_by_hand

    def _mark_published(self, batch: Sequence[Configuration]) -> None:
        self._set_published({configuration.number: configuration.revision for configuration in batch})

    def _set_published(self, revisions: Mapping[int, int]) -> None:
        """Record which revision of these configurations, by number, Optuna has; 0: none."""
        if not revisions:
            return
        study_id = sa.select(studies.c.id).where(studies.c.name == self._ledger.study).scalar_subquery()
        is_configuration = configurations.c.number == sa.bindparam("of_number")
        update = (
            sa.update(configurations)
            .where(configurations.c.study_id == study_id, is_configuration)
            .values(published=sa.bindparam("to_revision"))
        )
        rows = [{"of_number": number, "to_revision": revision} for number, revision in revisions.items()]
        with self._ledger.storage.write() as connection:
            connection.execute(update, rows)

    def _lease(self, seconds: float) -> bool:
        """Become the study's only publisher for some seconds, or (0) stop being it. False: another worker is."""
        with self._ledger.storage.read() as connection:
            if self._is_taken(
                study_row(connection, self._ledger.study)
            ):  # most times, with many workers: no writer waits for this
                return False
        with self._ledger.storage.write() as connection:
            row = study_row(connection, self._ledger.study, lock=True)
            if self._is_taken(row):
                return False
            publisher = str(self._process) if seconds else None
            until = float(row.now) + seconds
            connection.execute(
                sa.update(studies)
                .where(studies.c.name == self._ledger.study)
                .values(publisher=publisher, publisher_until=until)
            )
            return True

    def _is_taken(self, row: sa.Row[Any]) -> bool:
        """Whether another live worker is the publisher, by the study's row."""
        holder = ProcessId.parse(row.publisher or "")
        if not holder or holder == self._process or not is_current(row.publisher_until, float(row.now)):
            return False
        return not holder.known_dead()

    def _study(self) -> tuple[optuna.Study, dict[int, PublishedTrial]]:
        """The published study and, by configuration, its latest trial."""
        with quiet_optuna():
            study = optuna.create_study(
                storage=self._ledger.storage.optuna,
                study_name=self._ledger.study,
                direction="minimize",
                load_if_exists=True,
            )
        record = self._ledger.record()
        wanted = {MARK: record.version, "space": dict(record.space), "fingerprint": record.fingerprint}
        current = study.user_attrs
        if not _is_own(study):
            raise UserError(
                f"{record.name}: an Optuna study of this name that tmsearch did not make is in "
                f"{self._ledger.storage.display_name}; rename or delete it, then `tmsearch resume {record.name}`"
            )
        for key, value in wanted.items():
            if current.get(key) != value:
                study.set_user_attr(key, value)
        return study, published_trials(self._ledger.storage, study._study_id)

    def _read_trial(self, published: PublishedTrial | None) -> FrozenTrial | None:
        return None if published is None else self._ledger.storage.optuna.get_trial(published.trial_id)

    def _publish_trial(self, study: optuna.Study, trial: FrozenTrial | None, configuration: Configuration) -> None:
        """Create the configuration's trial or bring it to what the ledger says; a finished one gets a successor."""
        target_state = final_state(configuration)
        if trial is None:
            trial_id = self._create(study, configuration, succeeds=None)
        elif not trial.state.is_finished():
            trial_id = trial._trial_id
        elif trial.state == target_state and trial.intermediate_values == curve(configuration):
            return
        elif configuration.origin == IMPORTED:
            return  # published by an older version, with values that do not compare
        else:
            trial_id = self._create(study, configuration, succeeds=trial.number)
        self._write_attributes(trial_id, configuration)
        if target_state is None:
            return
        if self._annotator is not None:
            self._annotate(study, trial_id, configuration, self._annotator)
        value = configuration.value
        values = None if value is None or target_state == TrialState.FAIL else [value]
        if configuration.rungs and not compares(configuration, configuration.rungs[-1]):
            values = None
        self._ledger.storage.optuna.set_trial_state_values(trial_id, target_state, values)

    def _write_attributes(self, trial_id: int, configuration: Configuration) -> None:
        """Write the values, attributes and constraints that the trial lacks: one made just now has all of them."""
        if trial_id == self._created:
            self._created = None  # what changes from now on is to be written
            return
        storage = self._ledger.storage.optuna
        trial = storage.get_trial(trial_id)
        for step, value in curve(configuration).items():
            if step not in trial.intermediate_values:
                storage.set_trial_intermediate_value(trial_id, step, value)
        for key, attribute in attributes(configuration).items():
            if trial.user_attrs.get(key) != attribute:
                storage.set_trial_user_attr(trial_id, key, attribute)
        for key, constraint in constraints(configuration).items():
            if key not in trial.system_attrs:
                storage.set_trial_system_attr(trial_id, key, constraint)

    def _write_study_note(self, study: optuna.Study, annotator: Annotator) -> None:
        set_value_name(study, annotator.value_name)
        note = self._try_to_make(f"study {self._ledger.study}", annotator.study_note)
        if note is not None:
            write_study_note(study, note)

    def _annotate(self, study: optuna.Study, trial_id: int, configuration: Configuration, annotator: Annotator) -> None:
        """Write note and artifacts before the trial is finished: after that it takes none."""
        annotation = self._try_to_make(f"trial {configuration.number}", lambda: annotator.annotate(configuration))
        if annotation is not None:
            if self._artifacts is None:
                self._artifacts = ArtifactFolder(self._ledger.storage, self._ledger.record())
            self._artifacts.upload(trial_id, annotation.attachments)
            note = annotation.note
            if isinstance(annotator, UpdatingAnnotator):
                note = with_basis(note, annotator.basis(configuration))
            write_note(optuna.Trial(study, trial_id), note)

    def _try_to_make(self, subject: str, make: Callable[[], T]) -> T | None:
        """What the annotator made; None, and a notice, where it failed: a search must not end for want of a picture."""
        try:
            return make()
        except StorageUnavailableError:
            raise
        except Exception as error:
            self._notice(f"{subject} is published without its note: {type(error).__name__}: {error}")
            return None

    def _create(self, study: optuna.Study, configuration: Configuration, *, succeeds: int | None) -> int:
        """Create a running trial; returns Optuna's id of it."""
        params, ranges = self._params(configuration)
        # Its number is written in the transaction that makes the trial: a kill leaves no trial without it.
        user_attrs: dict[str, Any] = {CONFIGURATION: configuration.number, **attributes(configuration)}
        if succeeds is not None:
            user_attrs[SUCCEEDS] = succeeds
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=ranges,
            user_attrs=user_attrs,
            intermediate_values=curve(configuration),
            system_attrs=dict(constraints(configuration)),
        )
        self._created = self._ledger.storage.optuna.create_new_trial(study._study_id, template_trial=template)
        return self._created

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


def is_own(storage: Storage, name: str) -> bool:
    """Whether the Optuna study of this name, if there is one, was made by tmsearch, with all its trials."""
    try:
        study = optuna.load_study(study_name=name, storage=storage.optuna)
    except KeyError:
        return True
    return _is_own(study) and all(CONFIGURATION in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def delete_published(storage: Storage, name: str) -> list[str]:
    """Delete the published study, unless it has what tmsearch did not make; returns a remark then."""
    if not is_own(storage, name):
        return [f"the Optuna study {name} in {storage.display_name} was left: it has trials that tmsearch did not make"]
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name=name, storage=storage.optuna)
    return []


def _is_own(study: optuna.Study) -> bool:
    """Whether tmsearch made this study: it bears its mark, or is as empty as a kill after its creation leaves it."""
    attributes = study.user_attrs
    return MARK in attributes or not (set(attributes) - {"space", "fingerprint"} or study.get_trials(deepcopy=False))


def _listed(numbers: list[int]) -> str:
    return "configuration " + ", ".join(str(number) for number in sorted(numbers))
