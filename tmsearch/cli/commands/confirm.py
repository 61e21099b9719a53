"""The command confirm: the leaders and the default recipe again, as a study of its own."""

from __future__ import annotations

import argparse

from search.storage.database import open_storage
from tmsearch.cli.notice import notice_at_end, verdict_notice
from tmsearch.cli.services.confirmation import ConfirmOptions
from tmsearch.cli.services.run_study import StudyView
from tmsearch.cli.services.runs import confirm as races
from tmsearch.cli.services.runs.workers import worker_plan


def confirm(arguments: argparse.Namespace) -> int:
    """Race the leaders against the default recipe, and say whether the winner is real."""
    storage = open_storage(arguments.storage)
    plan = ConfirmOptions(arguments.top, arguments.seeds, arguments.folds)
    workers = worker_plan(arguments)
    options = races.RaceOptions(plan, arguments.budget, workers, arguments.track, arguments.test)
    with notice_at_end(storage, arguments.notify) as notice:
        view = StudyView()
        race = races.prepare(storage, arguments.study, options, view)
        notice.study = race.ledger.study
        notice.text_of = verdict_notice
        return notice.ended(races.run(race, options, view))
