"""What a run needs of this machine and of the environment's variables, checked before anything is written."""

from __future__ import annotations

import os

from search.errors import UserError
from search.execution import checkpoint_store
from search.storage.database import Storage
from tmsearch.cli.services.run_study import cache_folder
from tmsearch.cli.services.runs.workers import WorkerPlan, check_workers


def check_run(storage: Storage, workers: WorkerPlan) -> None:
    """What a run and its plan check before all else, since it takes no time; writes nothing.

    Raises:
        UserError: the storage, the cache, the place of the checkpoints or the workers cannot be what they are to be.
    """
    check_workers(storage, workers)
    storage.check_writable()
    _check_cache()
    url = os.environ.get("TMSEARCH_CHECKPOINTS")
    if url:
        checkpoint_store.check_url(url)


def _check_cache() -> None:
    """Raise UserError where no log-mel can be kept; a folder that is only read, with log-mels in it, may do."""
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not existing.is_dir():
        problem = "is not a folder"
    elif os.access(existing, os.W_OK | os.X_OK) or any(folder.glob("mels-*")):
        return
    else:
        problem = "cannot be written"
    raise UserError(
        f"{existing}: {problem}, and log-mels are to be kept there; set TMSEARCH_CACHE to a folder that can be written"
    )
