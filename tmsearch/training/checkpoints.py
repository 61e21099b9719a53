"""Checkpoints of a training: written whole or not at all, checked before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

_PREFIX = "step-"
_PENDING = ".pending-"  # being written, or on its way out; never read
_STATE = "state.json"
_MANIFEST = "manifest.json"  # sha256 of every other file; written last
_BLOCK = 1 << 20  # bytes hashed at a time


class CheckpointError(Exception):
    """A checkpoint that is cut, altered, or of another training: its folder and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: named groups of tensors (weights, moments, random) and everything else as JSON."""

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


def folder_name(step: int) -> str:
    """`step-000040`."""
    return f"{_PREFIX}{step:06d}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's name tells; raises Broken for any other name."""
    number = folder.name.removeprefix(_PREFIX)
    if not folder.name.startswith(_PREFIX) or not number.isdecimal():
        raise CheckpointError(f"{folder}: not named like a checkpoint ({folder_name(40)})")
    return int(number)


def save(save_to: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint into the folder `save_to` and returns its own folder.

    A process that is killed at any point leaves either no `step-` folder or a whole one: all is written and synced
    under another name, then renamed.
    """
    save_to.mkdir(parents=True, exist_ok=True)
    pending = save_to / f"{_PENDING}{folder_name(checkpoint.step)}-{uuid.uuid4().hex}"
    pending.mkdir()
    for group, tensors in checkpoint.tensors.items():
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, pending / f"{group}.safetensors")
    (pending / _STATE).write_text(json.dumps({**checkpoint.state, "step": checkpoint.step}), encoding="utf-8")
    sums = {path.name: _sha256(path) for path in sorted(pending.iterdir())}
    (pending / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for path in (*pending.iterdir(), pending):
        _sync(path)
    target = save_to / folder_name(checkpoint.step)
    if target.exists():
        discard(save_to, checkpoint.step)
    pending.rename(target)
    _sync(save_to)
    return target


class CheckpointWriter:
    """Saves checkpoints beside the training, one at a time; leaving the `with` block waits for the last."""

    def __init__(self, save_to: Path) -> None:
        self._save_to = save_to
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None
        self.took = 0.0  # seconds that the last copy and write needed

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None or issubclass(kind, OSError):
            self.wait()

    def write(self, checkpoint: Checkpoint, instead_of: int | None = None) -> None:
        """Copies the tensors, which may change from now on, and writes them; then discards step `instead_of`."""
        self.wait()
        began = time.monotonic()
        copies = {
            group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for group, tensors in checkpoint.tensors.items()
        }

        def written() -> Path:
            folder = save(self._save_to, Checkpoint(checkpoint.step, copies, checkpoint.state))
            if instead_of is not None and instead_of != checkpoint.step:
                discard(self._save_to, instead_of)
            self.took = time.monotonic() - began
            return folder

        self._writing = self._thread.submit(written)

    def wait(self) -> None:
        """Until the last checkpoint is on the disk; raises what writing it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def load(folder: Path, groups: Collection[str] | None = None) -> Checkpoint:
    """Reads a checkpoint, or the tensors of some `groups` of it, after checking every file against its checksum.

    Raises Broken.
    """
    sums = _checked(folder)
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        names = [name.removesuffix(".safetensors") for name in sums if name.endswith(".safetensors")]
        tensors = {
            name: load_file(folder / f"{name}.safetensors") for name in names if groups is None or name in groups
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if state.get("step") != step_of(folder):
        raise CheckpointError(f"{folder}: holds step {state.get('step')}")
    return Checkpoint(step_of(folder), tensors, state)


def latest(save_to: Path, at_most: int | None = None) -> Path | None:
    """The newest whole checkpoint in `save_to`, of step `at_most` or before; broken ones are passed by."""
    for step in sorted(_steps(save_to), reverse=True):
        folder = save_to / folder_name(step)
        if at_most is not None and step > at_most:
            continue
        try:
            _checked(folder)
        except CheckpointError:
            continue
        return folder
    return None


def keep_only(save_to: Path, steps: Collection[int]) -> None:
    """Deletes the checkpoints of all other steps, and what interrupted writes left behind.

    For the one who holds the training's lease: nobody else may be writing there.
    """
    for step in set(_steps(save_to)) - set(steps):
        discard(save_to, step)
    for left in save_to.glob(f"{_PENDING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _steps(save_to: Path) -> list[int]:
    found = []
    for folder in save_to.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX)
        if number.isdecimal() and folder.is_dir() and folder.name == folder_name(int(number)):
            found.append(int(number))
    return found


def discard(save_to: Path, step: int) -> None:
    """Deletes the checkpoint of `step` so that half of one never bears its name."""
    folder = save_to / folder_name(step)
    doomed = folder.with_name(f"{_PENDING}{folder.name}-{uuid.uuid4().hex}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def check(folder: Path) -> None:
    """Raises Broken where a checkpoint is gone; it is not read, for one whose content is known."""
    if not (folder / _MANIFEST).is_file():
        raise CheckpointError(f"{folder}: gone")


def verify(folder: Path) -> None:
    """Raises Broken where a file of the checkpoint does not agree with its checksum."""
    _checked(folder)


def _checked(folder: Path) -> dict[str, str]:
    """The manifest, once every file agrees with it; raises Broken."""
    try:
        sums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                raise CheckpointError(f"{folder}: {name} does not match its checksum")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if _STATE not in sums:
        raise CheckpointError(f"{folder}: no {_STATE}")
    return dict(sums)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
