"""A search: a study made of a space, or continued, until it has ended or somebody stops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from search import study
from search.errors import UserError
from search.paths import study_folder
from search.process_id import ProcessId
from search.records import IMPORTED, StudyRecord
from search.samplers.earlier import EarlierStudies
from search.space.search_space import Space, differences
from search.storage.database import Storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.create import DEFAULT_TRIALS, check_disk, check_space, create_study
from tmsearch.cli.services.earlier import known_to
from tmsearch.cli.services.knobs import (
    by_one_name,
    with_fitting_defaults,
    with_new_defaults,
    without_new_knobs,
    without_new_prompts,
)
from tmsearch.cli.services.plan import StudyPlan, study_plan
from tmsearch.cli.services.run_study import StudyView, new_trial_process, run_study
from tmsearch.cli.services.runs.preconditions import check_run
from tmsearch.cli.services.runs.workers import WorkerPlan
from tmsearch.config import NEW_STUDIES
from tmsearch.languages import UNSPACED, code_if_known
from tmsearch.tracking import choice


@dataclass(frozen=True)
class SearchOptions:
    """What a person asks of a search.

    Attributes:
        trials: the total number of configurations; None: as before, of a new study DEFAULT_TRIALS.
        timeout: seconds; None: no limit.
        seed: of sampling and training; None: as before, of a new study 0.
        workers: how many there are and what starts them.
        track: trackers as --track names them; None: as before.
    """

    trials: int | None = None
    timeout: float | None = None
    seed: int | None = None
    workers: WorkerPlan = field(default_factory=WorkerPlan)
    track: Sequence[str] | None = None


@dataclass(frozen=True)
class SpaceForms:
    """A space as it was written, and as a new study keeps it.

    Attributes:
        forms: as written, with defaults that fit, and last as a new study keeps it. Studies of earlier versions have
            one of the others, without the knobs that came later.
        remarks: what is to be said of the last.
    """

    forms: tuple[Space, ...]
    remarks: tuple[str, ...]

    @property
    def kept(self) -> Space:
        """The space as a new study keeps it."""
        return self.forms[-1]


def forms_of(written: Space) -> SpaceForms:
    """A space as written, in all forms that a study may have of it."""
    fitting, remarks = with_fitting_defaults(written)
    space, added = with_new_defaults(fitting)
    earlier = (without_new_knobs(written), without_new_knobs(fitting))
    by_import = with_new_defaults(written)[0]  # `tmsearch import` makes a study without defaults that fit
    first_windows = (without_new_prompts(by_import, written), without_new_prompts(space, written))
    return SpaceForms((written, *earlier, *first_windows, by_import, fitting, space), (*remarks, *added))


def run_space(storage: Storage, space: SpaceForms, options: SearchOptions, view: StudyView) -> int:
    """Start the study of a space, or continue it; returns an exit code.

    Raises:
        UserError: a person's mistake in the space, the data or the options; nothing was written.
        RunError: the study was stopped, with its reason.
    """
    choice.choose(options.track, None)  # raises before anything is written
    check_run(storage, options.workers)
    ledger = existing(storage, space, options.seed)
    if ledger is not None:
        return resume(ledger, options, view)
    name = space.kept.study
    untried = study.open_study(storage, name) if name in study.names(storage) else None
    if untried is None:
        study.check_unused(storage, name)
    child = new_trial_process()
    try:
        checked = check_space(child, space.kept, measure=False)
        check_disk(storage.folder, checked)
        if untried is not None:
            study.delete(untried)
            view.say(f"study {name} had no result yet: it starts again with the space as it is now")
        for remark in space.remarks:
            view.say(remark)
        trials = options.trials or DEFAULT_TRIALS
        try:
            ledger = create_study(storage, space.kept, checked, options.workers, trials, options.seed or 0)
        except UserError:
            if name in study.names(storage):  # another run made it meanwhile
                return _join(study.open_study(storage, name), space, options, view)
            raise
        known = EarlierStudies.of(ledger.facts())
        if known is not None:
            view.say(known.line_with_switch())
        if options.trials:
            ledger.set_trials(trials, ProcessId.current())
        return run_study(ledger, child, options.timeout, options.workers, options.track, view)
    finally:
        child.close()


def plan_space(storage: Storage, space: SpaceForms, options: SearchOptions, gpu_gb: float | None) -> StudyPlan:
    """Check all that `run_space` would check, and say what it would do; writes nothing.

    Args:
        storage: where the study would be kept.
        space: what would be searched.
        options: as of `run_space`; the workers' price is that of the plan.
        gpu_gb: memory of the GPU to plan for; None or 0: this machine.

    Raises:
        UserError: a person's mistake in the space, the data or the options.
    """
    check_run(storage, options.workers)
    ledger = existing(storage, space, options.seed)
    if space.kept.study not in study.names(storage):
        study.check_unused(storage, space.kept.study)
    child = new_trial_process()
    try:
        checked = check_space(child, space.kept, measure=True)
        check_disk(storage.folder, checked)
        known = known_to(storage, space.kept, checked.data) if ledger is None else EarlierStudies.of(ledger.facts())
        remarks = list(space.remarks)
        if known is not None:
            remarks.append(known.line_with_switch() if ledger is None else known.line())
        trials = options.trials or DEFAULT_TRIALS
        exists = ledger is not None
        return study_plan(space.kept, storage, checked, trials, remarks, exists, gpu_gb, options.workers.price)
    finally:
        child.close()


def existing(storage: Storage, space: SpaceForms, seed: int | None) -> Ledger | None:
    """The study that the space continues; None where it makes a new one, or one that starts again.

    Only a study without a result may start again, with a space that has changed.

    Raises:
        UserError: the space has changed, and there are results.
    """
    name = space.kept.study
    if name not in study.names(storage):
        return None
    ledger = study.open_study(storage, name)
    changed = changes(ledger.record(), space.forms, seed)
    if changed and not is_untried(ledger):
        raise UserError(changed_text(ledger.record(), space.kept.source, changed))
    return None if changed else ledger


def resume(ledger: Ledger, options: SearchOptions, view: StudyView) -> int:
    """Continue a study with the space that the database holds; returns an exit code. Raises as `run_space` does."""
    check_measure(ledger)
    check_run(ledger.storage, options.workers)
    choice.choose(options.track, study_folder(ledger.storage.folder, ledger.study))  # before anything is written
    child = new_trial_process()
    try:
        if not has_trained(ledger):  # made by `tmsearch import`, which looks at no model
            space = Space.from_json(dict(ledger.record().space))
            check_disk(ledger.storage.folder, check_space(child, space, measure=False))
        _set_total(ledger, options.trials, view)
        return run_study(ledger, child, options.timeout, options.workers, options.track, view)
    finally:
        child.close()


def _join(ledger: Ledger, space: SpaceForms, options: SearchOptions, view: StudyView) -> int:
    """Continue a study that another process made between our look and our making it."""
    changed = changes(ledger.record(), space.forms, options.seed)
    if changed:
        raise UserError(changed_text(ledger.record(), space.kept.source, changed))
    return resume(ledger, options, view)


def _set_total(ledger: Ledger, trials: int | None, view: StudyView) -> None:
    """Take a request to stop back, and raise the study's total to what was asked for, never below what it has."""
    if trials is None:
        ledger.withdraw_stop()
        return
    total = ledger.set_trials(trials, ProcessId.current())
    if total > trials:
        view.say(
            f"--trials {trials}: study {ledger.study} has or works towards {total} configurations already; its total "
            f"is {total}"
        )


def has_trained(ledger: Ledger) -> bool:
    """Whether a training of the study's own has a result."""
    return any(trial.rungs and trial.origin != IMPORTED for trial in ledger.history())


def is_untried(ledger: Ledger) -> bool:
    """Whether nothing is lost if the study starts again: no result, nothing that a person entered, nobody at work."""
    drawn_by_us = {"start", "sampled"}
    return all(
        not trial.rungs and trial.state != "running" and trial.origin in drawn_by_us for trial in ledger.history()
    )


def check_measure(ledger: Ledger) -> None:
    """Refuse to add to results that were measured wrongly, in one line.

    Before 0.2.0 a language that is written without spaces had its sentences counted as one word each where the space
    gave its English name.
    """
    written = str(Space.from_json(dict(ledger.record().space)).data.get("language", ""))
    if code_if_known(written) in UNSPACED and written.strip().lower() not in UNSPACED and has_trained(ledger):
        raise UserError(
            f"{ledger.study}: data.language: its WERs count each sentence of {written} as one word, so new ones do not "
            f"compare; start again with --study NEW, where {written} is read as {code_if_known(written)}"
        )


def changes(record: StudyRecord, spaces: Sequence[Space], seed: int | None) -> list[str]:
    """What differs between a study and a space, which may have any form of `forms_of`; empty: nothing."""
    changed = []
    kept = by_one_name(Space.from_json(dict(record.space)))
    given = [space.with_budget_of(kept) for space in spaces]
    if kept.fingerprint() not in [space.fingerprint() for space in given]:
        later_knobs = set(NEW_STUDIES) & set(kept.train)
        alike = [space for space in given[1:] if set(NEW_STUDIES) & set(space.train) == later_knobs]
        changed = differences(kept, (alike or given)[-1])
    if seed is not None and seed != record.seed:
        changed.append(f"--seed: was {record.seed}, is {seed}")
    return changed


def changed_text(record: StudyRecord, file: str, changed: list[str]) -> str:
    return (
        f"{file}: study {record.name} was started with another space: {'; '.join(changed)}; put it back, or continue "
        f"it as it was started with `tmsearch resume {record.name}`, or start a second study with --study NEW"
    )
