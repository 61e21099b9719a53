"""Checkpoints on an fsspec URL, for workers whose machines share no disk."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from search.errors import UserError, first_line
from search.paths import CHECKPOINTS, PENDING_PREFIX, claim_folder


def check_url(url: str) -> None:
    """Raise UserError where fsspec knows no such file system, or lacks what it needs for it. Looks at no server."""
    import fsspec

    problem = "TMSEARCH_CHECKPOINTS: cannot store checkpoints there"
    try:
        fsspec.get_filesystem_class(fsspec.core.split_protocol(url)[0] or "file")
    except ValueError as error:
        fix = "give a URL of another kind, such as s3://BUCKET/FOLDER, or unset the variable"
        raise UserError(f"{problem}: {first_line(error)}; {fix}") from None
    except ImportError as error:  # names what is to be installed
        raise UserError(f"{problem}: {first_line(error)}") from None


class CheckpointStore:
    """A study's checkpoints at a URL: trials/0007/checkpoints/..., as in the study's folder.

    A checkpoint is a folder that never changes and is checked by its own checksums when it is read, so an incomplete
    copy counts as missing. A store that fails is reported once and costs time, not results: the worker trains again
    from the start.

    Args:
        url: of an fsspec file system.
        study: a name that no other study of any database has.
        notice: shows one line to a person.

    Raises:
        UserError: there is no such file system.
    """

    def __init__(self, url: str, study: str, notice: Callable[[str], None]) -> None:
        check_url(url)
        self._url = url
        self._study = study
        self._notice = notice
        self._is_failure_reported = False

    @functools.cached_property
    def _location(self) -> tuple[Any, str]:
        """The file system and the path of the study there; raises what it raises where it does not answer."""
        import fsspec

        file_system, root = fsspec.core.url_to_fs(self._url)
        return file_system, f"{root.rstrip('/')}/{self._study}"

    @property
    def _file_system(self) -> Any:
        return self._location[0]

    def fetch(self, number: int, folder: Path) -> None:
        """Copy the checkpoints of trial `number` that are missing in `folder`, the trial's own, into it."""
        with self._reporting_failure():
            for name in sorted(self._stored_names(number)):
                target = folder / CHECKPOINTS / name
                if target.exists():
                    continue
                pending = target.with_name(f"{PENDING_PREFIX}{target.name}-{uuid.uuid4().hex}")
                pending.parent.mkdir(parents=True, exist_ok=True)
                self._file_system.get(f"{self._path_of(number)}/{name}/", str(pending), recursive=True)
                os.rename(pending, target)

    def store(self, number: int, folder: Path, token: int) -> None:
        """Make the stored checkpoints of trial `number` those of `folder`; those of claims after `token` stay."""
        with self._reporting_failure():
            checkpoints = folder / CHECKPOINTS
            local = {
                str(path.relative_to(checkpoints)) for path in checkpoints.glob("*/*") if not path.name.startswith(".")
            }
            stored = self._stored_names(number)
            for name in sorted(local - stored):
                # File by file: a recursive copy would nest the folder in an incomplete one of its name.
                for path in sorted((checkpoints / name).iterdir()):
                    remote = f"{self._path_of(number)}/{name}/{path.name}"
                    self._file_system.makedirs(remote.rpartition("/")[0], exist_ok=True)
                    self._file_system.put_file(str(path), remote)
            for name in stored - local:
                if name.partition("/")[0] <= claim_folder(folder, token).name:
                    self._remove(f"{self._path_of(number)}/{name}")

    def remove(self, numbers: Collection[int]) -> None:
        """Remove the stored checkpoints of these trials."""
        for number in numbers:
            with self._reporting_failure():
                self._remove(self._path_of(number))

    def clear(self) -> None:
        """Remove all that is stored of the study."""
        with self._reporting_failure("checkpoints of the study are left there"):
            self._remove(self._location[1])

    def _path_of(self, number: int) -> str:
        return f"{self._location[1]}/trials/{number:04d}/{CHECKPOINTS}"

    def _stored_names(self, number: int) -> set[str]:
        """claim-000001/step-000040, ... of one trial."""
        names = set[str]()
        self._file_system.invalidate_cache()
        if not self._file_system.isdir(self._path_of(number)):
            return names
        for claim in self._file_system.ls(self._path_of(number), detail=False):
            if self._file_system.isdir(claim):
                for checkpoint in self._file_system.ls(claim, detail=False):
                    names.add("/".join(checkpoint.rstrip("/").split("/")[-2:]))
        return names

    def _remove(self, path: str) -> None:
        self._file_system.invalidate_cache()
        if self._file_system.exists(path):
            self._file_system.rm(path, recursive=True)

    @contextlib.contextmanager
    def _reporting_failure(
        self, consequence: str = "a trial that another machine started starts again from step 0 here"
    ) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system raises errors of its own
            if not self._is_failure_reported:
                self._is_failure_reported = True
                self._notice(f"TMSEARCH_CHECKPOINTS: {first_line(error)}; {consequence}")
