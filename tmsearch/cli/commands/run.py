"""The commands run, resume and worker: they start workers on a study."""

from __future__ import annotations

import argparse
import functools
import sys

from search import study
from search.errors import MachineError, UserError
from search.execution.launchers.local import exit_with_parent
from search.exit_codes import DONE, MACHINE
from search.storage.database import Storage, open_storage
from tmsearch.cli.notice import notice_at_end
from tmsearch.cli.services.knobs import load_space
from tmsearch.cli.services.run_study import StudyView, new_trial_process, run_study
from tmsearch.cli.services.runs import search
from tmsearch.cli.services.runs.search import SearchOptions, SpaceForms
from tmsearch.cli.services.runs.workers import worker_plan
from tmsearch.cli.view.closing import closing_lines
from tmsearch.tracking import choice


def run(arguments: argparse.Namespace) -> int:
    """Start a study, or continue it."""
    _check_options(arguments)
    space = search.forms_of(load_space(arguments.space, arguments.set, arguments.study))
    storage = open_storage(arguments.storage)
    with notice_at_end(storage, arguments.notify, arguments.price) as notice:
        if arguments.dry_run:
            return notice.ended(_plan(storage, space, arguments))
        notice.study = space.kept.study
        return notice.ended(search.run_space(storage, space, _options(arguments), _view(arguments)))


def _check_options(arguments: argparse.Namespace) -> None:
    choice.choose(arguments.track, None)  # raises before anything is written
    if arguments.gpu is not None and not arguments.dry_run:
        raise UserError("--gpu is for the plan; give --dry-run with it")


def _plan(storage: Storage, space: SpaceForms, arguments: argparse.Namespace) -> int:
    """Check all that a run would check, and print what it would do."""
    plan = search.plan_space(storage, space, _options(arguments), arguments.gpu)
    for line in (*plan.lines, plan.last_line("the same command without --dry-run")):
        print(line)
    return DONE


def resume(arguments: argparse.Namespace) -> int:
    """Continue a study with the space that the database holds."""
    storage = open_storage(arguments.storage)
    with notice_at_end(storage, arguments.notify, arguments.price) as notice:
        ledger = study.open_study(storage, arguments.study)
        notice.study = arguments.study
        return notice.ended(search.resume(ledger, _options(arguments), _view(arguments)))


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


def _options(arguments: argparse.Namespace) -> SearchOptions:
    seed = getattr(arguments, "seed", None)  # `resume` has none
    return SearchOptions(arguments.trials, arguments.timeout, seed, worker_plan(arguments), arguments.track)


def _view(arguments: argparse.Namespace) -> StudyView:
    return StudyView(last_lines=functools.partial(closing_lines, price=arguments.price))
