"""Diagnoses of a study and their repairs: claims, files, checkpoints, schema, clocks, disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.dashboard.annotator import Annotator
from search.dashboard.artifacts import ArtifactFolder
from search.dashboard.published_study import CONFIGURATION
from search.dashboard.publisher import Publisher
from search.errors import RunError
from search.execution import checkpoint_gc
from search.paths import CHECKPOINTS, PENDING_PREFIX, remove, saved_checkpoints, trial_folder
from search.process_id import ProcessId
from search.records import IMPORTED, Configuration, code_versions
from search.space.search_space import Space
from search.storage import schema
from search.storage.ledger import Ledger

# Clocks that differ by less are equal enough to read times by; leases use the database's clock in any case.
SKEW_SECONDS = 5.0

CheckCheckpoint = Callable[[Path, Configuration], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check; `repair` makes it right where that can be done without a person."""

    name: str
    state: Literal["ok", "note", "bad"]
    message: str
    repair: Callable[[], object] | None = None


class Doctor:
    """Examines one study.

    Args:
        folder: The study's folder.
        check_checkpoint: Why a trial cannot resume from a checkpoint's folder, which is damaged or of another training;
            None if it can.
        foreign: Why the folder's files are not the study's; None if they are.
        annotator: Makes the notes and artifacts of what a repair publishes.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        check_checkpoint: CheckCheckpoint,
        annotator: Annotator | None = None,
        foreign: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._folder = folder
        self._check_checkpoint = check_checkpoint
        self._annotator = annotator
        self._foreign = foreign
        self._history = ledger.history()

    def examine(self) -> list[Diagnosis]:
        """Every diagnosis, in a fixed order."""
        return [
            self._storage(),
            Diagnosis("schema", "ok", f"version {schema.SCHEMA_VERSION}"),
            self._clock(),
            self._stopped(),
            self._claims(),
            self._workers(),
            *([Diagnosis("files", "bad", self._foreign)] if self._foreign else self._own_files()),
            self._versions(),
        ]

    def _own_files(self) -> Iterator[Diagnosis]:
        """What reads or repairs files, for a folder that is the study's own; publishing reads them, too."""
        yield self._published()
        yield self._artifacts()
        yield from self._files()
        yield self._checkpoints()
        yield self._free_disk()

    def _storage(self) -> Diagnosis:
        storage = self._ledger.storage
        if not storage.is_sqlite:
            return Diagnosis("storage", "ok", f"{storage.display_name} answers")
        with storage.read() as connection:
            problem = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if problem == "ok":
            return Diagnosis("storage", "ok", f"{storage.display_name} answers and is intact")
        return Diagnosis("storage", "bad", f"{storage.display_name}: {problem}; restore a copy")

    def _clock(self) -> Diagnosis:
        ahead = time.time() - self._ledger.now()  # seconds
        if abs(ahead) < SKEW_SECONDS:
            return Diagnosis("clock", "ok", "this machine's and the database's agree")
        direction = "ahead of" if ahead > 0 else "behind"
        return Diagnosis(
            "clock", "note", f"this machine's is {abs(ahead):.0f} s {direction} the database's, which counts"
        )

    def _stopped(self) -> Diagnosis:
        record = self._ledger.record()
        if record.stop_reason:
            return Diagnosis("stop", "note", f"stopped: {record.stop_reason}")
        if record.stopping:
            return Diagnosis("stop", "note", "its workers are asked to stop; `tmsearch resume` takes that back")
        return Diagnosis("stop", "ok", "nobody asked for it")

    def _claims(self) -> Diagnosis:
        stale = [
            configuration.number
            for configuration in self._history
            if configuration.state == "paused" and configuration.worker is not None
        ]
        if stale:
            message = f"stale: {_listed(stale)}, whose worker is gone"
            return Diagnosis("claims", "bad", message, self._ledger.release_stale)
        held = sum(configuration.state == "running" for configuration in self._history)
        return Diagnosis("claims", "ok", f"{held} held, none stale")

    def _workers(self) -> Diagnosis:
        workers = self._ledger.workers()
        dead = [worker.display_name for worker in workers if not worker.alive]
        if dead:
            message = f"gone without signing out: {', '.join(dead)}"
            return Diagnosis("workers", "note", message, lambda: self._ledger.sign_out(ProcessId.current()))
        return Diagnosis("workers", "ok", ", ".join(worker.display_name for worker in workers) or "none at work")

    def _has_workers(self) -> bool:
        return any(worker.alive for worker in self._ledger.workers())

    def _published(self) -> Diagnosis:
        due = [
            configuration.number
            for configuration in self._history
            if configuration.published < configuration.revision and configuration.drawn is not None
        ]
        if not due or self._has_workers():
            count = len(self._history)
            return Diagnosis("optuna", "ok", f"{count - len(due)} of {count} published")
        message = f"not published as they are now: {_listed(due)}"
        if all(self._history[number].origin == IMPORTED for number in due):
            # Nobody publishes before a worker runs: nothing is wrong with a fresh import.
            return Diagnosis("optuna", "note", f"{message}; the next run publishes what was imported", self._publish)
        return Diagnosis("optuna", "bad", message, self._publish)

    def _publish(self) -> None:
        space = Space.from_json(dict(self._ledger.record().space))
        publisher = Publisher(self._ledger, space, lambda text: None, self._annotator)
        publisher.check()
        publisher.finish()

    def _artifacts(self) -> Diagnosis:
        """Files that no trial names, and names without their file. A worker that publishes makes both for a moment."""
        if self._has_workers():
            return Diagnosis("artifacts", "ok", "not checked while workers publish")
        artifacts = ArtifactFolder(self._ledger.storage, self._ledger.record())
        orphans = artifacts.orphans()
        if orphans:
            message = f"no trial names {len(orphans)} files such as {orphans[0].name}"
            return Diagnosis("artifacts", "bad", message, lambda: _remove(orphans))
        dangling = artifacts.dangling()
        if dangling:
            names = ", ".join(sorted({name for _, name in dangling.values()})[:3])
            message = (
                f"{len(dangling)} files are gone, such as {names}; a repair restores what trials' folders still have"
            )
            return Diagnosis("artifacts", "note", message, lambda: self._restore(artifacts, dangling))
        return Diagnosis("artifacts", "ok", "every file is named, and every name has its file")

    def _restore(self, artifacts: ArtifactFolder, dangling: Mapping[str, tuple[int, str]]) -> None:
        if self._annotator is None:
            return
        self._annotator.open(self._history, lambda: None)  # a repair has no turn to keep
        try:
            for trial_id in {trial_id for trial_id, _ in dangling.values()}:
                number = self._ledger.storage.optuna.get_trial(trial_id).user_attrs.get(CONFIGURATION)
                if not isinstance(number, int):
                    continue
                attachments = self._annotator.annotate(self._history[number]).attachments
                for artifact_id, attachment in artifacts.with_ids(trial_id, attachments):
                    if artifact_id in dangling:
                        artifacts.put(artifact_id, attachment.content)
        finally:
            self._annotator.close()

    def _files(self) -> Iterator[Diagnosis]:
        numbers = {configuration.number for configuration in self._history}
        folders = [path for path in (self._folder / "trials").glob("*") if path.is_dir()]
        orphans = [path for path in folders if not path.name.isdigit() or int(path.name) not in numbers]
        if orphans:
            message = f"belong to no configuration: {', '.join(path.name for path in orphans)}"
            yield Diagnosis("files", "bad", message, lambda: _remove(orphans))
        leftovers = []
        has_workers = self._has_workers()
        for configuration in self._history:
            if configuration.state != "running":
                leftovers += self._leftovers(configuration, has_workers)
        if leftovers:
            names = ", ".join(str(path.relative_to(self._folder)) for path in leftovers[:5])
            if len(leftovers) > 5:
                names += " ..."
            yield Diagnosis("files", "bad", f"left by what was killed: {names}", lambda: _remove(leftovers))
        if not orphans and not leftovers:
            yield Diagnosis("files", "ok", f"{len(folders)} trial folders, none orphaned")

    def _leftovers(self, configuration: Configuration, has_workers: bool) -> list[Path]:
        """Files of a configuration that is not running and that nothing will ever read."""
        folder = trial_folder(self._folder, configuration.number)
        checkpoints = folder / CHECKPOINTS
        paths = checkpoint_gc.discarded_folders(folder)
        if not has_workers:  # one may still be writing the checkpoint of its last segment
            paths += checkpoints.glob(f"**/{PENDING_PREFIX}*")
        if configuration.ended and checkpoints.exists():
            paths.append(checkpoints)
        return paths

    def _checkpoints(self) -> Diagnosis:
        waiting = [trial for trial in self._history if trial.state in ("paused", "queued")]
        without = []
        unusable = []
        problems = []
        for trial in waiting:
            checkpoints = saved_checkpoints(trial_folder(self._folder, trial.number))
            if trial.state == "paused" and trial.steps and not checkpoints:
                without.append(trial.number)
            for path in checkpoints:
                problem = self._check_checkpoint(path, trial)
                if problem is not None:
                    unusable.append(path)
                    problems.append(f"trial {trial.number}: {path.relative_to(self._folder)}: {problem}")
        if unusable:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            message = (
                f"unusable: {'; '.join(problems[:3])}{more}; such a trial trains again, from a usable checkpoint or "
                "from step 0; a repair removes these"
            )
            return Diagnosis("checkpoints", "bad", message, lambda: _remove(unusable))
        paused = sum(trial.state == "paused" and trial.steps > 0 for trial in waiting)
        message = f"{paused - len(without)} of {paused} paused configurations have one, intact"
        if without:
            message += "; the others train from the start if they are promoted"
        return Diagnosis("checkpoints", "ok", message)

    def _free_disk(self) -> Diagnosis:
        existing = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free  # bytes
        sizes = [0]  # bytes
        for configuration in self._history:
            sizes.append(checkpoint_gc.size_of(trial_folder(self._folder, configuration.number) / CHECKPOINTS))
        largest = max(sizes)
        disk_gb = Space.from_json(dict(self._ledger.record().space)).budget.disk_gb
        budget = checkpoint_gc.disk_budget(self._folder, disk_gb, sum(sizes))
        message = (
            f"{_size(free)} free at {existing}; checkpoints take {_size(sum(sizes))}, the largest {_size(largest)}, "
            f"paused configurations' {_size(budget)} at most (budget.disk_gb)"
        )
        return Diagnosis("disk", "bad" if free < 2 * largest else "ok", message)

    def _versions(self) -> Diagnosis:
        counts = code_versions(self._history)
        if len(counts) < 2:
            return Diagnosis("code", "ok", next(iter(counts), "nothing was trained yet"))
        results = ", ".join(f"{count} results by {version}" for version, count in counts.items())
        return Diagnosis("code", "note", f"changed midway: {results}")


def _remove(paths: Sequence[Path]) -> None:
    """Remove files and folders; raises RunError where one could not be removed."""
    problems = []
    for path in paths:
        problems += remove(path)
    if problems:
        raise RunError(f"could not be removed: {problems[0]}")


def _size(count: float) -> str:
    """Bytes, in the unit that fits."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _listed(numbers: Sequence[int]) -> str:
    return "configuration " + ", ".join(map(str, numbers))
