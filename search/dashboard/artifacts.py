"""A study's files in Optuna's artifact store: each uploaded once, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.artifacts import ArtifactMeta

from search.dashboard.annotator import Attachment
from search.records import StudyRecord
from search.storage.database import Storage

PREFIX = "artifacts:"  # of the trial attribute that names an artifact, as Optuna has it


def artifacts_folder(storage: Storage) -> Path:
    """Where the artifacts of all studies are."""
    return storage.folder / "artifacts"


class ArtifactFolder:
    """One study's artifacts.

    Optuna's own upload draws a random id and names it in the database before the file is there: killed in between, it
    leaves a name without a file; repeated, a second copy. Here an id is made of what it stands for (study, trial, name
    and content), the file comes first and as a whole, and then its name.
    """

    def __init__(self, storage: Storage, record: StudyRecord) -> None:
        self._storage = storage
        self._study = record.name
        self._folder = artifacts_folder(storage)
        # Another study of the same name, made later or in another database of this folder, has another.
        self._mark = _digest(record.name, repr(record.created), record.fingerprint)[:12]

    def upload(self, trial_id: int, exhibits: Sequence[Attachment]) -> None:
        """Put a trial's exhibits on the shelf; the trial must not have been told yet."""
        known = self._storage.optuna.get_trial_system_attrs(trial_id)
        named = set(known)
        for artifact_id, exhibit in self.named(trial_id, exhibits):
            self.put(artifact_id, exhibit.content)
            key = PREFIX + artifact_id
            if key not in known:
                meta = ArtifactMeta(artifact_id, exhibit.name, exhibit.mimetype, None)
                self._storage.optuna.set_trial_system_attr(trial_id, key, json.dumps(dataclasses.asdict(meta)))
            named.add(key)
        for path in self._files(f"{self._mark}-{trial_id:08d}-"):
            if PREFIX + path.name not in named:  # left by an upload that was killed, of content that has changed since
                path.unlink(missing_ok=True)

    def named(self, trial_id: int, exhibits: Sequence[Attachment]) -> Iterator[tuple[str, Attachment]]:
        """Each with its id: hexadecimal, as the dashboard's addresses want it, and in the order of their showing."""
        for place, one in enumerate(exhibits):
            digest = _digest(one.name, one.mimetype, hashlib.sha256(one.content).hexdigest())
            yield f"{self._mark}-{trial_id:08d}-{place:02d}{digest[:18]}", one

    def put(self, artifact_id: str, content: bytes) -> None:
        """The file as a whole, or none; one that is there is the same, as its name tells its content."""
        file = self._folder / artifact_id
        if file.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = self._folder / f".{artifact_id}.{os.getpid()}"
        with scratch.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(file)

    def orphans(self) -> list[Path]:
        """Files of this study that no trial names: of a trial deleted in the dashboard, or of an upload cut short."""
        named = set(self._named())
        return [path for path in self._files(self._mark) if path.name not in named]

    def dangling(self) -> Mapping[str, tuple[int, str]]:
        """By id, the trial (Optuna's id) and name of artifacts whose file is gone."""
        return {key: value for key, value in self._named().items() if not (self._folder / key).is_file()}

    def clear(self) -> None:
        """Remove every file of the study, also those that a person uploaded in the dashboard."""
        for name in [*self._named(of_study=True), *(path.name for path in self._files(self._mark))]:
            if Path(name).name == name:
                (self._folder / name).unlink(missing_ok=True)

    def _files(self, begin: str) -> list[Path]:
        """Whole ones, and what was cut short while it was written."""
        return sorted([*self._folder.glob(f"{begin}*"), *self._folder.glob(f".{begin}*")])

    def _named(self, *, of_study: bool = False) -> dict[str, tuple[int, str]]:
        """What the database names, by id: the trial (-1: the study itself) and the file's name."""
        found: dict[str, tuple[int, str]] = {}
        storage = self._storage.optuna
        with contextlib.suppress(KeyError):  # deleted in the dashboard
            study_id = storage.get_study_id_from_name(self._study)
            if of_study:
                found |= {meta["artifact_id"]: (-1, "") for meta in _metas(storage.get_study_system_attrs(study_id))}
            for trial in storage.get_all_trials(study_id, deepcopy=False):
                attrs = storage.get_trial_system_attrs(trial._trial_id)
                found |= {meta["artifact_id"]: (trial._trial_id, meta["filename"]) for meta in _metas(attrs)}
        return found


def _metas(attrs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One deleted in the dashboard is left as null."""
    for key, value in attrs.items():
        if key.startswith(PREFIX):
            meta = json.loads(value)
            if isinstance(meta, dict):
                yield meta


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
