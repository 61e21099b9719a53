"""Checkpoints of a training: written whole or not at all, checked before they are read.

Layout: `step-000040/` holds a safetensors file for each group of tensors, state.json, and manifest.json with the
sha256 of every other file. A trial keeps them in a folder for each claim on it, `claim-000003/step-000040/`, so that
two processes that both believe they hold the trial never write to the same place.
"""

from __future__ import annotations

import contextlib
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
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tmsearch import files
from tmsearch.errors import CheckpointError

_STEP = "step-"
_CLAIM = "claim-"
_PENDING = ".pending-"  # being written, or being deleted; never read
_STATE = "state.json"
_MANIFEST = "manifest.json"  # written last
_SUFFIX = ".safetensors"
_BLOCK = 1 << 20  # bytes hashed at a time


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: named groups of tensors (weights, moments, random) and everything else as JSON."""

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


def folder_name(step: int) -> str:
    """`step-000040`."""
    return f"{_STEP}{step:06d}"


def step_of(folder: Path) -> int:
    """The step in a checkpoint's folder name; raises CheckpointError for any other name."""
    number = folder.name.removeprefix(_STEP)
    if not folder.name.startswith(_STEP) or not number.isdecimal():
        raise CheckpointError(f"{folder}: not named like a checkpoint ({folder_name(40)})")
    return int(number)


def save(save_to: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint into the folder `save_to` and returns the checkpoint's own folder.

    A process killed at any point leaves either no `step-` folder or a complete one: everything is written and synced
    under another name, then renamed.
    """
    save_to.mkdir(parents=True, exist_ok=True)
    pending = save_to / f"{_PENDING}{folder_name(checkpoint.step)}-{uuid.uuid4().hex}"
    try:
        _write(pending, checkpoint)
    except BaseException:
        shutil.rmtree(pending, ignore_errors=True)  # on a full disk, what it takes is needed
        raise
    target = save_to / folder_name(checkpoint.step)
    if target.exists():
        discard(save_to, checkpoint.step)
    pending.rename(target)
    _sync(save_to)
    return target


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the files of a checkpoint and waits until they are on the disk; raises OSError."""
    folder.mkdir()
    for group, tensors in checkpoint.tensors.items():
        file = folder / f"{group}{_SUFFIX}"
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        except SafetensorError as error:
            raise files.as_os_error(error, file) from error
    files.follow_umask(*folder.iterdir())
    (folder / _STATE).write_text(json.dumps({**checkpoint.state, "step": checkpoint.step}), encoding="utf-8")
    sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _sync(path)


class CheckpointWriter:
    """Saves checkpoints in a thread, one at a time, while training continues; leaving the `with` block waits for the
    last one."""

    def __init__(self, save_to: Path) -> None:
        self._save_to = save_to
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None
        self.last_seconds = 0.0  # that the last copy and write took

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None or issubclass(kind, OSError):
            self.wait()

    def write(self, checkpoint: Checkpoint, instead_of: int | None = None) -> None:
        """Copies the tensors, so that training may change them, and saves the copy; then discards step `instead_of`.

        Raises what writing the checkpoint before it raised.
        """
        self.wait()
        started = time.monotonic()
        copies = {
            group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for group, tensors in checkpoint.tensors.items()
        }

        def write() -> Path:
            folder = save(self._save_to, Checkpoint(checkpoint.step, copies, checkpoint.state))
            if instead_of is not None and instead_of != checkpoint.step:
                discard(self._save_to, instead_of)
            self.last_seconds = time.monotonic() - started
            return folder

        self._writing = self._thread.submit(write)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk; raises what writing it raised."""
        writing = self._writing
        self._writing = None
        if writing is not None:
            writing.result()


def load(folder: Path) -> Checkpoint:
    """Reads a checkpoint after checking every file against its checksum; raises CheckpointError."""
    sums = _checked(folder)
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        tensors = {}
        for name in sums:
            if name.endswith(_SUFFIX):
                tensors[name.removesuffix(_SUFFIX)] = load_file(folder / name)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder}: {_STATE} holds no object")
    if state.get("step") != step_of(folder):
        raise CheckpointError(f"{folder}: holds step {state.get('step')}")
    return Checkpoint(step_of(folder), tensors, state)


def latest(
    save_to: Path,
    at_most: int | None = None,
    identity: Mapping[str, str] = MappingProxyType({}),
    unusable: Collection[Path] = (),
) -> Path | None:
    """The newest intact checkpoint in `save_to`; damaged ones and those of another training are passed by.

    Args:
        save_to: folder of checkpoints.
        at_most: its step, or an earlier one.
        identity: of the training, as its state says it; empty: any.
        unusable: checkpoints that were found to be so.
    """
    for step in sorted(_steps(save_to), reverse=True):
        folder = save_to / folder_name(step)
        if (at_most is not None and step > at_most) or folder in unusable:
            continue
        with contextlib.suppress(CheckpointError):
            _checked(folder)
            _check_identity(folder, identity)
            return folder
    return None


def _check_identity(folder: Path, identity: Mapping[str, str]) -> None:
    """Raises CheckpointError where the checkpoint is of another training."""
    if not identity:
        return
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        differing = [key for key, value in identity.items() if state.get(key) != value]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if differing:
        raise CheckpointError(f"{folder}: made with another {differing[0]}")


def keep_only(save_to: Path, steps: Collection[int]) -> None:
    """Deletes the checkpoints of all other steps, and what interrupted writes left behind.

    Only the holder of the training's lease may call it: nobody else may be writing there.
    """
    for step in set(_steps(save_to)) - set(steps):
        discard(save_to, step)
    _delete_pending(save_to)


def discard(save_to: Path, step: int) -> None:
    """Deletes the checkpoint of `step`, renamed first so that no half of it is ever taken for a checkpoint."""
    folder = save_to / folder_name(step)
    doomed = folder.with_name(f"{_PENDING}{folder.name}-{uuid.uuid4().hex}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def check(folder: Path) -> None:
    """Raises CheckpointError where a checkpoint is gone; its content is not read."""
    if not (folder / _MANIFEST).is_file():
        raise CheckpointError(f"{folder}: gone")


def verify(folder: Path, identity: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raises CheckpointError where a file does not match its checksum, or the checkpoint is of another training.

    Args:
        folder: the checkpoint's own.
        identity: of the training; empty: any.
    """
    _checked(folder)
    _check_identity(folder, identity)


def claim_folder(trial_checkpoints: Path, token: int) -> Path:
    """Where the claim with this fencing token writes its checkpoints."""
    return trial_checkpoints / f"{_CLAIM}{token:06d}"


def latest_of_claims(
    trial_checkpoints: Path,
    at_most: int,
    identity: Mapping[str, str] = MappingProxyType({}),
    unusable: Collection[Path] = (),
) -> Path | None:
    """The newest usable checkpoint of a trial, whichever claim wrote it; arguments as `latest` has them."""
    newest: Path | None = None
    for folder in (trial_checkpoints, *sorted(trial_checkpoints.glob(f"{_CLAIM}*"))):
        checkpoint = latest(folder, at_most, identity, unusable)
        if checkpoint is not None and (newest is None or step_of(checkpoint) > step_of(newest)):
            newest = checkpoint
    return newest


def keep_only_claimed(trial_checkpoints: Path, token: int, step: int) -> None:
    """Keeps the checkpoint of `step` of the claim with this token, and deletes its others and those of earlier claims.

    Later claims belong to another process and are left alone.
    """
    claimed = claim_folder(trial_checkpoints, token)
    keep_only(claimed, [step])
    keep_only(trial_checkpoints, [])  # written by a version without claims
    for folder in trial_checkpoints.glob(f"{_CLAIM}*"):
        if folder.name < claimed.name:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(trial_checkpoints / f"{_PENDING}{folder.name}-{uuid.uuid4().hex}")
    _delete_pending(trial_checkpoints)


def _delete_pending(folder: Path) -> None:
    for pending in folder.glob(f"{_PENDING}*"):
        shutil.rmtree(pending, ignore_errors=True)


def _steps(save_to: Path) -> list[int]:
    steps = []
    for folder in save_to.glob(f"{_STEP}*"):
        number = folder.name.removeprefix(_STEP)
        if number.isdecimal() and folder.is_dir() and folder.name == folder_name(int(number)):
            steps.append(int(number))
    return steps


def _checked(folder: Path) -> dict[str, str]:
    """The manifest, once every file agrees with it; raises CheckpointError."""
    try:
        sums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                raise CheckpointError(f"{folder}: {name} does not match its checksum")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
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
