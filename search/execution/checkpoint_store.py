"""Checkpoints on an fsspec URL, for workers whose machines share no disk."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.paths import CHECKPOINTS, PENDING_PREFIX, claim_folder


class CheckpointStore:
    """A study's checkpoints at `url`: trials/0007/checkpoints/..., as in the study's folder.

    A checkpoint is a folder that never changes once it is there, and that is checked by its own checksums when it is
    read: one that was copied by half is one that is not there. What the depot cannot do is said once and costs time,
    not results: the worker trains again from the start.
    """

    def __init__(self, url: str, study: str, notice: Callable[[str], None]) -> None:
        import fsspec

        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"TMSEARCH_CHECKPOINTS: no place for checkpoints: {said}") from None
        self._root = f"{root.rstrip('/')}/{study}/trials"
        self._notice = notice
        self._said = False

    def fetch(self, number: int, folder: Path) -> None:
        """Bring the checkpoints of configuration `number` into `folder` (the trial's) that are not there yet."""
        self._try(lambda: self._fetch(number, folder))

    def store(self, number: int, folder: Path, token: int) -> None:
        """Make the depot hold what `folder` holds; nothing of a later claim than `token` is touched."""
        self._try(lambda: self._store(number, folder, token))

    def remove(self, numbers: Collection[int]) -> None:
        """Let the checkpoints of these configurations go."""
        for number in numbers:
            self._try(functools.partial(self._remove, self._place(number)))

    def _place(self, number: int) -> str:
        return f"{self._root}/{number:04d}/{CHECKPOINTS}"

    def _there(self, number: int) -> set[str]:
        """claim-000001/step-000040, ... of one configuration."""
        place, found = self._place(number), set[str]()
        self._files.invalidate_cache()
        if not self._files.isdir(place):
            return found
        for claim in self._files.ls(place, detail=False):
            if self._files.isdir(claim):
                steps = self._files.ls(claim, detail=False)
                found |= {"/".join(step.rstrip("/").split("/")[-2:]) for step in steps}
        return found

    def _fetch(self, number: int, folder: Path) -> None:
        for name in sorted(self._there(number)):
            target = folder / CHECKPOINTS / name
            if target.exists():
                continue
            pending = target.with_name(f"{PENDING_PREFIX}{target.name}-{uuid.uuid4().hex}")
            pending.parent.mkdir(parents=True, exist_ok=True)
            self._files.get(f"{self._place(number)}/{name}/", str(pending), recursive=True)
            os.rename(pending, target)

    def _store(self, number: int, folder: Path, token: int) -> None:
        kept = folder / CHECKPOINTS
        here = {str(path.relative_to(kept)) for path in kept.glob("*/*") if not path.name.startswith(".")}
        there = self._there(number)
        for name in sorted(here - there):
            # The place is a folder of its own name, so that nothing is nested where it exists in part.
            for path in sorted((kept / name).iterdir()):
                remote = f"{self._place(number)}/{name}/{path.name}"
                self._files.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), remote)
        for name in there - here:
            if name.partition("/")[0] <= claim_folder(folder, token).name:
                self._remove(f"{self._place(number)}/{name}")

    def _remove(self, place: str) -> None:
        self._files.invalidate_cache()
        if self._files.exists(place):
            self._files.rm(place, recursive=True)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # each file system raises errors of its own
            if not self._said:
                self._said = True
                said = (str(error).splitlines() or [type(error).__name__])[0]
                self._notice(f"TMSEARCH_CHECKPOINTS: {said}; a trial that another machine began starts anew here")
