"""A study's files in Optuna's artifact store, each uploaded once whatever is killed; the dashboard that shows them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.artifacts import ArtifactMeta

from search.dashboard.annotator import Attachment
from search.paths import ARTIFACTS, remove, write_atomically
from search.records import StudyRecord
from search.storage.database import Storage

PREFIX = "artifacts:"  # of the trial attribute that names an artifact, as Optuna has it


def artifacts_folder(storage: Storage) -> Path:
    """The folder of all studies' artifacts."""
    return storage.folder / ARTIFACTS


def dashboard_application(storage: Storage) -> Callable[..., Any]:
    """optuna-dashboard on every study of the storage, as a WSGI application."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    folder = artifacts_folder(storage)
    if not storage.is_read_only:
        folder.mkdir(parents=True, exist_ok=True)
    application: Callable[..., Any] = wsgi(storage.optuna, artifact_store=FileSystemArtifactStore(str(folder)))
    return application


class ArtifactFolder:
    """One study's artifacts.

    Optuna's own upload draws a random id and names it in the database before the file exists: killed in between, it
    leaves a name without a file; repeated, a second copy. Here an id is a digest of what it stands for (study, trial,
    name and content), and the file is written before its name.
    """

    def __init__(self, storage: Storage, record: StudyRecord) -> None:
        self._storage = storage
        self._study = record.name
        self._folder = artifacts_folder(storage)
        self._earlier: dict[int, list[Path]] | None = None
        # A study of the same name that is made later, or in another database of this folder, has another prefix.
        self._study_prefix = _digest(record.name, repr(record.created), record.fingerprint)[:12]

    def upload(self, trial_id: int, attachments: Sequence[Attachment], attributes: Mapping[str, Any]) -> dict[str, str]:
        """Write a trial's attachments; returns the system attributes that name them, where `attributes` lacks them."""
        names = {}
        for artifact_id, attachment in self.with_ids(trial_id, attachments):
            self.put(artifact_id, attachment.content)
            key = PREFIX + artifact_id
            if key not in attributes:
                meta = ArtifactMeta(artifact_id, attachment.name, attachment.mimetype, None)
                names[key] = json.dumps(dataclasses.asdict(meta))
        for path in self._earlier_files().get(trial_id, ()):
            if PREFIX + path.name not in {*attributes, *names}:
                path.unlink(missing_ok=True)  # left by an upload that was killed, of content that has changed since
        return names

    def _earlier_files(self) -> Mapping[int, Sequence[Path]]:
        """The files that were there at this object's first upload, by Optuna's id of their trial.

        The folder holds every trial's files: looked through for each of them it would take the square of their number.
        """
        if self._earlier is None:
            self._earlier = {}
            named = re.compile(rf"\.?{re.escape(self._study_prefix)}-(\d{{8,}})-")
            for path in self._files(self._study_prefix):
                match = named.match(path.name)
                if match:
                    self._earlier.setdefault(int(match[1]), []).append(path)
        return self._earlier

    def with_ids(self, trial_id: int, attachments: Sequence[Attachment]) -> Iterator[tuple[str, Attachment]]:
        """Each attachment with its id: hexadecimal, as the dashboard's addresses need it, in the order of display."""
        for index, attachment in enumerate(attachments):
            content_digest = hashlib.sha256(attachment.content).hexdigest()
            digest = _digest(attachment.name, attachment.mimetype, content_digest)
            yield f"{self._study_prefix}-{trial_id:08d}-{index:02d}{digest[:18]}", attachment

    def put(self, artifact_id: str, content: bytes) -> None:
        """Write the file, unless it exists: its name is a digest of its content."""
        path = self._folder / artifact_id
        if not path.exists():
            write_atomically(path, content)

    def orphans(self) -> list[Path]:
        """Files of this study that no trial names: of a trial deleted in the dashboard, or of an upload cut short."""
        names = self._names()
        return [path for path in self._files(self._study_prefix) if path.name not in names]

    def dangling(self) -> Mapping[str, tuple[int, str]]:
        """By id, the trial (Optuna's id) and name of artifacts whose file is gone."""
        return {
            artifact_id: trial_and_name
            for artifact_id, trial_and_name in self._names().items()
            if not (self._folder / artifact_id).is_file()
        }

    def clear(self, *, uploads: bool) -> list[str]:
        """Remove every file of the study; returns what could not be removed, and why.

        Args:
            uploads: Also those that a person uploaded in the dashboard; the published study must be tmsearch's own.
        """
        problems = []
        for path in self._own_files(uploads):
            problems += remove(path)
        return problems

    def locked_folder(self, *, uploads: bool) -> Path | None:
        """The folder where it holds files of the study that this process cannot remove; `uploads` as of `clear`."""
        if os.access(self._folder, os.W_OK | os.X_OK):
            return None
        return self._folder if any(path.exists() for path in self._own_files(uploads)) else None

    def _own_files(self, uploads: bool) -> list[Path]:
        """Paths of the study's files, some of which may be gone; `uploads` as of `clear`."""
        names = {path.name for path in self._files(self._study_prefix)}
        if uploads:
            names.update(self._names(), self._study_artifact_ids())
        return [self._folder / name for name in sorted(names) if Path(name).name == name]

    def _files(self, prefix: str) -> list[Path]:
        """Finished files, and those cut short while they were written."""
        return sorted([*self._folder.glob(f"{prefix}*"), *self._folder.glob(f".{prefix}*")])

    def _names(self) -> dict[str, tuple[int, str]]:
        """What the trials name in the database, by artifact id: Optuna's id of the trial, and the file's name."""
        names = {}
        storage = self._storage.optuna
        with contextlib.suppress(KeyError):  # the study was deleted in the dashboard
            study_id = storage.get_study_id_from_name(self._study)
            for trial in storage.get_all_trials(study_id, deepcopy=False):
                for meta in _metas(storage.get_trial_system_attrs(trial._trial_id)):
                    names[meta["artifact_id"]] = (trial._trial_id, meta["filename"])
        return names

    def _study_artifact_ids(self) -> list[str]:
        """What the published study itself names: a person's uploads."""
        storage = self._storage.optuna
        with contextlib.suppress(KeyError):  # the study was deleted in the dashboard
            study_id = storage.get_study_id_from_name(self._study)
            return [meta["artifact_id"] for meta in _metas(storage.get_study_system_attrs(study_id))]
        return []


def _metas(attributes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The artifacts among attributes; one that was deleted in the dashboard is left there as null."""
    for key, value in attributes.items():
        if key.startswith(PREFIX):
            meta = json.loads(value)
            if isinstance(meta, dict):
                yield meta


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
