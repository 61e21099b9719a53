"""Checkpoints that nothing needs any more, or that are over the budget: taken out of the way, then removed."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from search.imported import without_imported
from search.paths import CHECKPOINTS, DISCARDED_SUFFIX, claim_folder, discarded, trial_folder
from search.records import ENDED
from search.schedulers import scheduler
from search.schedulers.asha import promising
from search.storage.ledger import Ledger

# Where no budget is given, paused configurations take this share of what the disk has to give.
DISK_SHARE = 0.5


def sweep(
    ledger: Ledger, scheduler_config: scheduler.SchedulerConfig, study_folder: Path, disk_gb: float | None
) -> list[int]:
    """Keep the checkpoints of the most promising paused configurations, as many as fit; the numbers of those let go.

    A configuration that is promoted without its checkpoint trains again from the start, to the same result. Repeated
    until it is done.
    """
    if not study_folder.exists():
        return []
    # Looked at without the lock first: most times there is nothing to do, and nobody waits for the disk.
    record = ledger.record()
    doomed = _doomed(
        scheduler.SchedulerState(scheduler_config, without_imported(ledger.history()), record.trials),
        study_folder,
        disk_gb,
    )
    if doomed:
        with ledger.locked() as (history, total):
            doomed = _doomed(
                scheduler.SchedulerState(scheduler_config, without_imported(history), total), study_folder, disk_gb
            )
            for number in doomed:
                # Renamed while nobody can claim it; what a kill leaves of it is found by its name.
                discard(trial_folder(study_folder, number) / CHECKPOINTS)
        clear_discarded(study_folder)
    return doomed


def _doomed(study: scheduler.SchedulerState, study_folder: Path, disk_gb: float | None) -> list[int]:
    """The configurations at rest whose checkpoints are there and not to be kept."""
    folders = {one.number: trial_folder(study_folder, one.number) / CHECKPOINTS for one in study.history}
    there = {number for number, folder in folders.items() if folder.exists()}
    kept = [one for one in promising(study) if one.number in there]  # most promising first
    sizes = {one.number: size_of(folders[one.number]) for one in kept}
    given = shutil.disk_usage(study_folder).free + sum(sizes.values())
    left, keep = given * DISK_SHARE if disk_gb is None else disk_gb * 1e9, set()
    for one in kept:
        if sizes[one.number] <= left:
            keep.add(one.number)
            left -= sizes[one.number]
    resting = [one.number for one in study.history if one.state in ("paused", *ENDED) and not one.unfinished]
    return [number for number in resting if number in there and number not in keep]


def discard_claim(trial_folder: Path, token: int) -> None:
    """Remove the checkpoints of a claim that was lost: nobody's, if the holder has gone on from them or not."""
    folder = claim_folder(trial_folder, token)
    discard(folder)
    shutil.rmtree(discarded(folder), ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # the last one there


def size_of(folder: Path) -> int:
    """Bytes of all files below; 0 where there is no such folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another worker may be removing it
            total += path.stat().st_size if path.is_file() else 0
    return total


def discard(folder: Path) -> None:
    """Rename it, so that nobody finds half of it; nothing happens where it is not there."""
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rename(discarded(folder))
        except OSError:  # an earlier one was not removed yet
            shutil.rmtree(discarded(folder), ignore_errors=True)
            os.rename(folder, discarded(folder))


def clear_discarded(study_folder: Path) -> None:
    """Remove what was discarded, by whoever it was."""
    for pattern in (f"trials/*/*{DISCARDED_SUFFIX}", f"trials/*/{CHECKPOINTS}/*{DISCARDED_SUFFIX}"):
        for path in study_folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
