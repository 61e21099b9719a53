"""The command worker: one more worker of a study, on any machine that reaches its storage."""

from __future__ import annotations

import argparse

from search import study
from search.errors import UserError
from search.execution.launchers.local import exit_with_parent
from search.storage.database import open_storage
from tmsearch.cli.services.run_study import new_trial_process, run_study


def worker(arguments: argparse.Namespace) -> int:
    """Work on a study until nothing is left to do in it."""
    exit_with_parent()
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    record = ledger.record()
    if record.stopping:
        why = record.stop_reason or "somebody asked its workers to stop"
        raise UserError(f"{record.name}: {why}; `tmsearch resume {record.name}` goes on with it")
    child = new_trial_process()
    try:
        return run_study(ledger, child, arguments.timeout)
    finally:
        child.close()
