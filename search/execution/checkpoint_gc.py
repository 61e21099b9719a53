"""Removal of checkpoints that nothing needs any more or that exceed the disk budget."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from search.execution.checkpoint_store import CheckpointStore
from search.imported import without_imported
from search.paths import CHECKPOINTS, DISCARDED_SUFFIX, claim_folder, discarded, trial_folder
from search.records import ENDED, Configuration
from search.schedulers.asha import promising
from search.schedulers.scheduler import SchedulerConfig, SchedulerState
from search.storage.ledger import Ledger

_REMOVE_SECONDS = 60.0  # for the removal of checkpoints from the store
_JOIN_SECONDS = 0.05  # between looks at whether a person wants to leave
# Without a budget, checkpoints of paused trials take so many GB at most, and no more than this share of the free disk
# space (their own counted as free).
DISK_GB = 100.0
DISK_SHARE = 0.5


def sweep(
    ledger: Ledger, config: SchedulerConfig, study_folder: Path, disk_gb: float | None
) -> tuple[tuple[Configuration, ...], list[int]]:
    """Keep the checkpoints of the most promising paused trials, as many as fit, and remove the others.

    A trial that is promoted without its checkpoint trains again from the start, to the same result. What a sweep that
    was interrupted left behind is removed by `clear_discarded`.

    Args:
        ledger: the study.
        config: its rungs and policy.
        study_folder: its files.
        disk_gb: the budget in GB; None for DISK_GB, or DISK_SHARE of the disk where that is less.

    Returns:
        The study's history, and the numbers of the trials whose checkpoints were removed.
    """
    history, record = ledger.snapshot()
    if not study_folder.exists():
        return history, []
    # Most times there is nothing to remove: without the lock first, so that no other worker waits for the disk.
    state = SchedulerState(config, without_imported(history), record.trials)
    numbers = _removable(state, study_folder, disk_gb)
    if numbers:
        with ledger.locked() as (history, total):
            state = SchedulerState(config, without_imported(history), total)
            numbers = _removable(state, study_folder, disk_gb)
            for number in numbers:
                # Renamed while nobody can claim the trial; after a kill the next worker finds it by its new name.
                discard(trial_folder(study_folder, number) / CHECKPOINTS)
        clear_discarded(study_folder)
    return history, numbers


class Sweeper:
    """Sweeps for one worker, also the store of checkpoints.

    Args:
        ledger: the study.
        config: its rungs and policy.
        study_folder: its files.
        disk_gb: as of `sweep`.
        store: None where there is none.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: SchedulerConfig,
        study_folder: Path,
        disk_gb: float | None,
        store: CheckpointStore | None,
    ) -> None:
        self._arguments = (ledger, config, study_folder, disk_gb)
        self._store = store
        self._removed: set[int] = set()  # numbers of trials that ended
        self._to_remove: set[int] = set()
        self._removal: threading.Thread | None = None

    def sweep(self) -> None:
        """Sweep once. The store is swept in a thread: one that does not answer holds nobody up."""
        history, numbers = sweep(*self._arguments)
        if self._store is None:
            return
        ended = {trial.number for trial in history if trial.ended} - self._removed
        self._removed |= ended
        self._to_remove |= ended | set(numbers)
        if self._to_remove and not (self._removal and self._removal.is_alive()):
            self._removal = threading.Thread(target=self._store.remove, args=(self._to_remove,), daemon=True)
            self._to_remove = set()
            self._removal.start()

    def wait(self, leave: Callable[[], bool]) -> None:
        """Wait a while for the store, unless a person wants to leave."""
        until = time.monotonic() + _REMOVE_SECONDS
        while self._removal and self._removal.is_alive() and time.monotonic() < until and not leave():
            self._removal.join(_JOIN_SECONDS)


def clean_up(ledger: Ledger, config: SchedulerConfig, study_folder: Path, disk_gb: float | None) -> None:
    """A sweep that also removes what an earlier one, which was killed, left behind; arguments as of `sweep`."""
    clear_discarded(study_folder)
    sweep(ledger, config, study_folder, disk_gb)


def _removable(state: SchedulerState, study_folder: Path, disk_gb: float | None) -> list[int]:
    """The trials that do not run, have checkpoints, and are not among those to keep."""
    folders: dict[int, Path] = {}
    for trial in state.history:
        folder = trial_folder(study_folder, trial.number) / CHECKPOINTS
        if folder.exists():
            folders[trial.number] = folder
    candidates = [trial.number for trial in promising(state) if trial.number in folders]  # most promising first
    sizes = {number: size_of(folders[number]) for number in candidates}
    room = disk_budget(study_folder, disk_gb, sum(sizes.values()))
    keep = set()
    for number in candidates:
        if sizes[number] <= room:
            keep.add(number)
            room -= sizes[number]
    idle = [trial.number for trial in state.history if trial.state in ("paused", *ENDED) and not trial.unfinished]
    return [number for number in idle if number in folders and number not in keep]


def disk_budget(folder: Path, disk_gb: float | None, taken: int = 0) -> float:
    """Bytes that checkpoints of paused trials may take.

    Args:
        folder: on the disk in question; it need not exist yet.
        disk_gb: the space file's budget in GB; None for the default.
        taken: bytes that they take already.
    """
    if disk_gb is not None:
        return disk_gb * 1e9
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return min(DISK_GB * 1e9, (shutil.disk_usage(existing).free + taken) * DISK_SHARE)


def discard_claim(trial_folder: Path, token: int) -> None:
    """Remove the checkpoints of a lost claim; whoever holds the trial now has read what it needs of them."""
    folder = claim_folder(trial_folder, token)
    discard(folder)
    shutil.rmtree(discarded(folder), ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # if it was the last claim in there


def size_of(folder: Path) -> int:
    """Bytes of all files below the folder; 0 if it does not exist."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another worker may be removing it
            if path.is_file():
                total += path.stat().st_size
    return total


def discard(folder: Path) -> None:
    """Rename the folder, if it exists, so that nobody reads it while it is removed."""
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rename(discarded(folder))
        except OSError:  # an earlier one was not removed yet
            shutil.rmtree(discarded(folder), ignore_errors=True)
            os.rename(folder, discarded(folder))


def clear_discarded(study_folder: Path) -> None:
    """Remove every discarded folder of the study, whichever worker renamed it; a worker does so when it starts."""
    for folder in study_folder.glob("trials/*"):
        for path in discarded_folders(folder):
            shutil.rmtree(path, ignore_errors=True)


def discarded_folders(trial_folder: Path) -> list[Path]:
    """The folders of a trial that wait for their removal."""
    return [*trial_folder.glob(f"*{DISCARDED_SUFFIX}"), *(trial_folder / CHECKPOINTS).glob(f"*{DISCARDED_SUFFIX}")]
