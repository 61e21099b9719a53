"""The commands run, resume and worker: they start workers on a study."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

from search import study
from search.errors import MachineError, UserError
from search.execution.launchers.local import exit_with_parent
from search.exit_codes import DONE, MACHINE
from search.paths import study_folder
from search.process_id import ProcessId
from search.records import IMPORTED, StudyRecord
from search.space.search_space import Space, differences
from search.storage.database import Storage, open_storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.notice import notice_at_end
from tmsearch.cli.services.create import DEFAULT_TRIALS, check_disk, check_space, create_study
from tmsearch.cli.services.knobs import (
    by_one_name,
    load_space,
    with_fitting_defaults,
    with_new_defaults,
    without_new_knobs,
)
from tmsearch.cli.services.plan import print_plan
from tmsearch.cli.services.run_study import new_trial_process, run_study, worker_plan
from tmsearch.cli.view.closing import closing_lines
from tmsearch.config import NEW_STUDIES
from tmsearch.languages import UNSPACED, code_if_known
from tmsearch.tracking import choice


def run(arguments: argparse.Namespace) -> int:
    """Start a study, or continue it."""
    _check_options(arguments)
    forms, remarks = _forms(load_space(arguments.space, arguments.set, arguments.study))
    storage = open_storage(arguments.storage)
    with notice_at_end(arguments, storage) as notice:
        if not arguments.dry_run:
            notice.study = forms[-1].study
        return notice.ended(_run(storage, forms, remarks, arguments))


def _run(storage: Storage, forms: Sequence[Space], remarks: Sequence[str], arguments: argparse.Namespace) -> int:
    """Start the study of a space, or continue it; `forms` as `_forms` makes them."""
    space = forms[-1]
    ledger = study.open_study(storage, space.study) if space.study in study.names(storage) else None
    exists = ledger is not None and not _is_replaced(ledger, forms, arguments)
    if ledger is not None and exists and not arguments.dry_run:
        return _continue(ledger, arguments)
    if ledger is None:
        study.check_unused(storage, space.study)
    child = new_trial_process()
    try:
        trials = arguments.trials or DEFAULT_TRIALS
        checked = check_space(child, space, measure=arguments.dry_run)
        check_disk(storage.folder, checked)
        if arguments.dry_run:
            print_plan(space, storage, checked, trials, remarks, exists, arguments.gpu, arguments.price)
            return DONE
        workers = worker_plan(arguments)
        if ledger is not None:
            _forget_untried(ledger)
        print("".join(f"{remark}\n" for remark in remarks), end="")
        try:
            ledger = create_study(storage, space, checked, workers, trials, arguments.seed or 0)
        except UserError:
            if space.study in study.names(storage):  # another run made it meanwhile
                return _join(study.open_study(storage, space.study), forms, arguments)
            raise
        if arguments.trials:
            ledger.set_trials(trials, ProcessId.current())
        lines = _closing_lines(arguments)
        return run_study(ledger, child, arguments.timeout, lines, workers, track=arguments.track)
    finally:
        child.close()


def _is_replaced(ledger: Ledger, forms: Sequence[Space], arguments: argparse.Namespace) -> bool:
    """Whether the study starts again, with a space that has changed: only one without a result may.

    Raises:
        UserError: it has changed, and there are results.
    """
    changes = _changes(ledger.record(), forms, arguments.seed)
    if changes and not _is_untried(ledger):
        raise UserError(_changed_text(ledger.record(), arguments.space, changes))
    return bool(changes)


def _forget_untried(ledger: Ledger) -> None:
    name = ledger.record().name
    study.delete(ledger)
    print(f"study {name} had no result yet: it starts again with the space as it is now")


def _check_options(arguments: argparse.Namespace) -> None:
    choice.choose(arguments.track, None)  # raises before anything is written
    if arguments.gpu is not None and not arguments.dry_run:
        raise UserError("--gpu is for the plan; give --dry-run with it")


def resume(arguments: argparse.Namespace) -> int:
    """Continue a study with the space that the database holds."""
    storage = open_storage(arguments.storage)
    with notice_at_end(arguments, storage) as notice:
        ledger = study.open_study(storage, arguments.study)
        notice.study = arguments.study
        return notice.ended(_continue(ledger, arguments))


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
    _check_measure(ledger)
    choice.choose(arguments.track, study_folder(ledger.storage.folder, ledger.study))  # before anything is written
    child = new_trial_process()
    try:
        if not _has_trained(ledger):  # made by `tmsearch import`, which looks at no model
            space = Space.from_json(dict(ledger.record().space))
            check_disk(ledger.storage.folder, check_space(child, space, measure=False))
        _set_total(ledger, arguments.trials)
        workers = worker_plan(arguments)
        return run_study(ledger, child, arguments.timeout, _closing_lines(arguments), workers, track=arguments.track)
    finally:
        child.close()


def _closing_lines(arguments: argparse.Namespace) -> Callable[[Summary], list[str]]:
    return functools.partial(closing_lines, price=arguments.price)


def _join(ledger: Ledger, spaces: Sequence[Space], arguments: argparse.Namespace) -> int:
    """Continue a study that another process made between our look and our making it."""
    changes = _changes(ledger.record(), spaces, arguments.seed)
    if changes:
        raise UserError(_changed_text(ledger.record(), arguments.space, changes))
    return _continue(ledger, arguments)


def _set_total(ledger: Ledger, trials: int | None) -> None:
    """Take a request to stop back, and raise the study's total to what was asked for, never below what it has."""
    if trials is None:
        ledger.withdraw_stop()
        return
    total = ledger.set_trials(trials, ProcessId.current())
    if total > trials:
        print(
            f"--trials {trials}: study {ledger.study} has or works towards {total} configurations already; its total "
            f"is {total}"
        )


def _has_trained(ledger: Ledger) -> bool:
    """Whether a training of the study's own has a result."""
    return any(trial.rungs and trial.origin != IMPORTED for trial in ledger.history())


def _is_untried(ledger: Ledger) -> bool:
    """Whether nothing is lost if the study starts again: no result, nothing that a person entered, nobody at work."""
    drawn_by_us = {"start", "sampled"}
    return all(
        not trial.rungs and trial.state != "running" and trial.origin in drawn_by_us for trial in ledger.history()
    )


def _check_measure(ledger: Ledger) -> None:
    """Refuse to add to results that were measured wrongly, in one line.

    Before 0.2.0 a language that is written without spaces had its sentences counted as one word each where the space
    gave its English name.
    """
    written = str(Space.from_json(dict(ledger.record().space)).data.get("language", ""))
    if code_if_known(written) in UNSPACED and written.strip().lower() not in UNSPACED and _has_trained(ledger):
        raise UserError(
            f"{ledger.study}: data.language: its WERs count each sentence of {written} as one word, so new ones do not "
            f"compare; start again with --study NEW, where {written} is read as {code_if_known(written)}"
        )


def _forms(written: Space) -> tuple[tuple[Space, ...], list[str]]:
    """A space as written, with defaults that fit, and last as a new study keeps it; and what is to be said of the last.

    Studies of earlier versions have the others, without the knobs that came later.
    """
    fitting, remarks = with_fitting_defaults(written)
    space, added = with_new_defaults(fitting)
    earlier = (without_new_knobs(written), without_new_knobs(fitting))
    by_import = with_new_defaults(written)[0]  # `tmsearch import` makes a study without defaults that fit
    return (written, *earlier, by_import, fitting, space), [*remarks, *added]


def _changes(record: StudyRecord, spaces: Sequence[Space], seed: int | None) -> list[str]:
    """What differs between a study and a space, which may have any of `_forms`; empty: nothing."""
    changes = []
    kept = by_one_name(Space.from_json(dict(record.space)))
    given = [space.with_budget_of(kept) for space in spaces]
    if kept.fingerprint() not in [space.fingerprint() for space in given]:
        later_knobs = set(NEW_STUDIES) & set(kept.train)
        alike = [space for space in given[1:] if set(NEW_STUDIES) & set(space.train) == later_knobs]
        changes = differences(kept, (alike or given)[-1])
    if seed is not None and seed != record.seed:
        changes.append(f"--seed: was {record.seed}, is {seed}")
    return changes


def _changed_text(record: StudyRecord, file: str, changes: list[str]) -> str:
    return (
        f"{file}: study {record.name} was started with another space: {'; '.join(changes)}; put it back, or continue "
        f"it as it was started with `tmsearch resume {record.name}`, or start a second study with --study NEW"
    )
