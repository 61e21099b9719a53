"""What is wrong with a study, and what of it can be mended: claims, files, checkpoints, schema, clocks, disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.dashboard.annotator import Annotator
from search.dashboard.artifacts import ArtifactFolder
from search.dashboard.publisher import CONFIGURATION, Publisher
from search.execution import checkpoint_gc
from search.paths import CHECKPOINTS, trial_folder
from search.process_id import ProcessId
from search.records import Configuration, code_versions
from search.space.search_space import Space
from search.storage import schema
from search.storage.ledger import Ledger

# Clocks that differ by less are equal enough to read times by; leases use the database's clock whatever they say.
SKEW_SECONDS = 5.0

Broken = Callable[[Path], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at. `mend` makes it right where that can be done without a person."""

    name: str
    state: Literal["ok", "note", "bad"]
    message: str
    repair: Callable[[], object] | None = None


class Doctor:
    """Looks at one study. `broken` says what is wrong with a checkpoint's folder; None: it is whole.

    What is published by a repair has the curator's notes and artifacts.
    """

    def __init__(self, ledger: Ledger, folder: Path, broken: Broken, annotator: Annotator | None = None) -> None:
        self._ledger = ledger
        self._folder = folder
        self._broken = broken
        self._curator = annotator
        self._history = ledger.history()

    def examine(self) -> list[Diagnosis]:
        """Everything that was looked at, in one order."""
        return [
            self._storage(),
            Diagnosis("schema", "ok", f"version {schema.SCHEMA_VERSION}"),
            self._clock(),
            self._stopped(),
            self._claims(),
            self._workers(),
            self._published(),
            self._artifacts(),
            *self._files(),
            self._checkpoints(),
            self._space_left(),
            self._versions(),
        ]

    def _storage(self) -> Diagnosis:
        storage = self._ledger.storage
        if not storage.is_sqlite:
            return Diagnosis("storage", "ok", f"{storage.display_name} answers")
        with storage.read() as connection:
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if said == "ok":
            return Diagnosis("storage", "ok", f"{storage.display_name} answers and is whole")
        return Diagnosis("storage", "bad", f"{storage.display_name}: {said}; put a copy back")

    def _clock(self) -> Diagnosis:
        ahead = time.time() - self._ledger.now()
        if abs(ahead) < SKEW_SECONDS:
            return Diagnosis("clock", "ok", "this machine's and the database's agree")
        way = "ahead of" if ahead > 0 else "behind"
        return Diagnosis("clock", "note", f"this machine's is {abs(ahead):.0f} s {way} the database's, which counts")

    def _stopped(self) -> Diagnosis:
        record = self._ledger.record()
        if record.stop_reason:
            return Diagnosis("stop", "note", f"stopped: {record.stop_reason}")
        asked = "its workers are asked to leave; `tmsearch resume` takes that back"
        return Diagnosis(
            "stop", "note" if record.stopping else "ok", asked if record.stopping else "nobody asked for it"
        )

    def _claims(self) -> Diagnosis:
        stale = [one.number for one in self._history if one.state == "paused" and one.worker is not None]
        if not stale:
            return Diagnosis("claims", "ok", f"{sum(one.state == 'running' for one in self._history)} held, none stale")
        said = f"stale: {_listed(stale)}, whose worker is gone"
        return Diagnosis("claims", "bad", said, self._ledger.release_stale)

    def _workers(self) -> Diagnosis:
        known = self._ledger.workers()
        gone = [one.display_name for one in known if not one.alive]
        if gone:
            said = f"gone without a word: {', '.join(gone)}"
            return Diagnosis("workers", "note", said, lambda: self._ledger.sign_out(ProcessId.current()))
        return Diagnosis("workers", "ok", ", ".join(one.display_name for one in known) or "none at work")

    def _published(self) -> Diagnosis:
        due = [one.number for one in self._history if one.published < one.revision and one.drawn is not None]
        if not due or any(one.alive for one in self._ledger.workers()):
            return Diagnosis("optuna", "ok", f"{len(self._history) - len(due)} of {len(self._history)} published")
        return Diagnosis("optuna", "bad", f"not published as they are now: {_listed(due)}", self._publish)

    def _publish(self) -> None:
        space = Space.from_json(dict(self._ledger.record().space))
        publisher = Publisher(self._ledger, space, lambda text: None, self._curator)
        publisher.check()
        publisher.finish()

    def _artifacts(self) -> Diagnosis:
        """Files that no trial names, and names without their file. Who publishes just now makes both, for a moment."""
        if any(one.alive for one in self._ledger.workers()):
            return Diagnosis("artifacts", "ok", "not looked at while workers publish")
        shelf = ArtifactFolder(self._ledger.storage, self._ledger.record())
        orphans, gone = shelf.orphans(), shelf.dangling()
        if orphans:
            said = f"no trial names {len(orphans)} files such as {orphans[0].name}"
            return Diagnosis("artifacts", "bad", said, lambda: _remove(orphans))
        if gone:
            names = ", ".join(sorted({name for _, name in gone.values()})[:3])
            said = f"{len(gone)} files are gone, such as {names}; a repair puts back what trials' folders still have"
            return Diagnosis("artifacts", "note", said, lambda: self._put_back(shelf, gone))
        return Diagnosis("artifacts", "ok", "every file is named, and every name has its file")

    def _put_back(self, shelf: ArtifactFolder, gone: Mapping[str, tuple[int, str]]) -> None:
        if self._curator is None:
            return
        self._curator.open(self._history)
        try:
            for trial_id in {trial_id for trial_id, _ in gone.values()}:
                number = self._ledger.storage.optuna.get_trial(trial_id).user_attrs.get(CONFIGURATION)
                if not isinstance(number, int):
                    continue
                exhibits = self._curator.annotate(self._history[number]).attachments
                for artifact_id, exhibit in shelf.with_ids(trial_id, exhibits):
                    if artifact_id in gone:
                        shelf.put(artifact_id, exhibit.content)
        finally:
            self._curator.close()

    def _files(self) -> Iterator[Diagnosis]:
        numbers = {one.number for one in self._history}
        folders = [path for path in (self._folder / "trials").glob("*") if path.is_dir()]
        strange = [path for path in folders if not path.name.isdigit() or int(path.name) not in numbers]
        if strange:
            said = f"belong to no configuration: {', '.join(path.name for path in strange)}"
            yield Diagnosis("files", "bad", said, lambda: _remove(strange))
        left = [path for one in self._history if one.state != "running" for path in self._left(one)]
        if left:
            said = f"left by what was killed: {', '.join(str(path.relative_to(self._folder)) for path in left[:5])}"
            yield Diagnosis("files", "bad", said + (" ..." if len(left) > 5 else ""), lambda: _remove(left))
        if not strange and not left:
            yield Diagnosis("files", "ok", f"{len(folders)} trial folders, none orphaned")

    def _left(self, one: Configuration) -> list[Path]:
        """What of a configuration that nobody is at can never be read again."""
        folder = trial_folder(self._folder, one.number)
        found = [*folder.glob("*.discarded"), *(folder / CHECKPOINTS).glob("**/.pending-*")]
        if one.ended and (folder / CHECKPOINTS).exists():
            found.append(folder / CHECKPOINTS)
        return found

    def _checkpoints(self) -> Diagnosis:
        resting = [one for one in self._history if one.state == "paused" and one.steps]
        kept = {one.number: self._saved(one) for one in resting}
        bad = [(path, why) for paths in kept.values() for path in paths if (why := self._broken(path)) is not None]
        if bad:
            said = f"broken: {'; '.join(why for _, why in bad[:3])}; what needs them trains again"
            return Diagnosis("checkpoints", "bad", said, lambda: _remove([path for path, _ in bad]))
        without = [number for number, paths in kept.items() if not paths]
        if without:
            return Diagnosis("checkpoints", "note", f"none of {_listed(without)}: promoted, they train from the start")
        return Diagnosis("checkpoints", "ok", f"{len(kept)} paused configurations have theirs, whole")

    def _saved(self, one: Configuration) -> list[Path]:
        folder = trial_folder(self._folder, one.number) / CHECKPOINTS
        found = [path for path in folder.glob("claim-*/*") if path.is_dir() and not path.name.startswith(".")]
        return sorted(found)

    def _space_left(self) -> Diagnosis:
        there = next(one for one in (self._folder, *self._folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        folders = [trial_folder(self._folder, one.number) / CHECKPOINTS for one in self._history]
        largest = max((checkpoint_gc.size_of(folder) for folder in folders if folder.exists()), default=0)
        said = f"{free / 1e9:.1f} GB free at {there}, a checkpoint takes {largest / 1e9:.2f} GB"
        return Diagnosis("disk", "bad" if free < 2 * largest else "ok", said)

    def _versions(self) -> Diagnosis:
        found = code_versions(self._history)
        if len(found) < 2:
            return Diagnosis("code", "ok", next(iter(found), "nothing was trained yet"))
        said = ", ".join(f"{count} results by {version}" for version, count in found.items())
        return Diagnosis("code", "note", f"changed midway: {said}")


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_file():
            path.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def _listed(numbers: Sequence[int]) -> str:
    return "configuration " + ", ".join(map(str, numbers))
