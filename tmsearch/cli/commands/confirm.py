"""The command confirm: the leaders and the default recipe again, as a study of its own."""

from __future__ import annotations

import argparse
import functools

from search.errors import UserError
from search.exit_codes import DONE
from search.storage.database import Storage, open_storage
from tmsearch.cli.notice import notice_at_end, verdict_notice
from tmsearch.cli.services.confirmation import ConfirmOptions
from tmsearch.cli.services.run_study import StudyView
from tmsearch.cli.services.runs import confirm as races
from tmsearch.cli.services.runs.confirm import RaceOptions
from tmsearch.cli.services.runs.workers import worker_plan


def confirm(arguments: argparse.Namespace) -> int:
    """Race the leaders against the default recipe, and say whether the winner is real."""
    if arguments.gpu is not None and not arguments.dry_run:
        raise UserError("--gpu is for the plan; give --dry-run with it")
    storage = open_storage(arguments.storage)
    plan = ConfirmOptions(arguments.top, arguments.seeds, arguments.folds)
    workers = worker_plan(arguments)
    options = races.RaceOptions(plan, arguments.budget, workers, arguments.track, arguments.test)
    with notice_at_end(storage, arguments.notify, arguments.price) as notice:
        if arguments.dry_run:
            return notice.ended(_plan(storage, arguments, options))
        view = StudyView()
        race = races.prepare(storage, arguments.study, options, view)
        notice.study = race.ledger.study
        notice.text_of = functools.partial(verdict_notice, price=arguments.price)
        return notice.ended(races.run(race, options, view))


def _plan(storage: Storage, arguments: argparse.Namespace, options: RaceOptions) -> int:
    """Check all that a confirmation would check, and print what it would do."""
    plan = races.plan_race(storage, arguments.study, options, arguments.gpu)
    for line in (*plan.lines, plan.last_line("the same command without --dry-run")):
        print(line)
    return DONE
