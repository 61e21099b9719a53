"""A worker of toys as a crew starts it: `python toy_worker.py FOLDER`, the storage's URL in TMSEARCH_STORAGE."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from search.errors import RunError, UserError
from search.execution.child_process import ChildProcess
from search.execution.launchers import LOCATION_VARIABLE
from search.execution.launchers.local import exit_with_parent
from search.execution.lease import Interrupts
from search.execution.worker import Worker
from search.space.search_space import Space
from search.storage.database import open_storage
from search.study import open_study
from tests.support.toy_study import CHILD, KNOBS, Watcher


class Teller(Watcher):
    def notice(self, text):
        print(text, flush=True)


def main(folder):
    exit_with_parent()
    ledger, child = open_study(open_storage(), "toy"), ChildProcess(CHILD)
    space = Space.from_json(dict(ledger.record().space))
    job = {"step_seconds": float(os.environ.get("TOY_STEP_SECONDS", "0"))}
    interrupts = Interrupts()
    worker = Worker(
        ledger,
        space,
        KNOBS,
        child,
        Path(folder),
        job,
        Teller(),
        location=os.environ.get(LOCATION_VARIABLE, ""),
        version="toy",
    )
    try:
        with interrupts.handle_signals():
            outcome = worker.run(interrupts)
    except (UserError, RunError) as error:
        print(error, flush=True)
        return 2 if isinstance(error, UserError) else 1
    finally:
        child.close()
    return 130 if outcome == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
