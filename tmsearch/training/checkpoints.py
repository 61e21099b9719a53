"""Checkpoints of a training: written whole or not at all, checked before they are read.

Layout: `step-000040/` holds a safetensors file for each group of tensors, state.json, and manifest.json with the
sha256 of every other file. A trial keeps them in a folder for each claim on it, `claim-000003/step-000040/`, so that
two processes that both believe they hold the trial never write to the same place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tmsearch.errors import CheckpointError
from tmsearch.files import sync
from tmsearch.training import tensor_file

_STEP = "step-"
_CLAIM = "claim-"
_PENDING = ".pending-"  # being written, or being deleted; never read
_STATE = "state.json"
_MANIFEST = "manifest.json"  # written last
SUFFIX = ".safetensors"
AVERAGE = "average"  # the group of the averaged weights, where a training averages them
_BLOCK = 1 << 20  # bytes hashed at a time


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: named groups of tensors (weights, moments, random, average), everything else as JSON."""

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


class VerifiedCheckpoints:
    """The checkpoints that this process wrote, or compared with their checksums: once is enough.

    One whose files were changed since, by name, size, time or inode, counts as not verified.
    """

    def __init__(self) -> None:
        self._signatures: dict[Path, tuple[tuple[object, ...], ...]] = {}

    def add(self, folder: Path) -> None:
        """Remembers the files of `folder` as they are now."""
        self._signatures[folder] = _signature(folder)

    def __contains__(self, folder: Path) -> bool:
        known = self._signatures.get(folder)
        return known is not None and known == _signature(folder)


def _signature(folder: Path) -> tuple[tuple[object, ...], ...]:
    """Name, size in bytes, time of change in nanoseconds and inode of every file; empty where the folder is gone."""
    signature = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            status = path.stat()
            signature.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(signature)


def save(save_to: Path, checkpoint: Checkpoint, verified: VerifiedCheckpoints | None = None) -> Path:
    """Writes a checkpoint into the folder `save_to` and returns the checkpoint's own folder.

    A process killed at any point leaves either no `step-` folder or a complete one: everything is written and synced
    under another name, then renamed. Every byte is hashed as it is written. The new checkpoint counts as `verified`.
    """
    save_to.mkdir(parents=True, exist_ok=True)
    return save_into(save_to, checkpoint, verified)


def save_into(save_to: Path, checkpoint: Checkpoint, verified: VerifiedCheckpoints | None = None) -> Path:
    """As `save`, into a folder that must exist: raises FileNotFoundError where it was removed meanwhile."""
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
    sync(save_to)
    if verified is not None:
        verified.add(target)
    return target


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the files of a checkpoint and waits until they are on the disk; raises OSError."""
    folder.mkdir()
    sums = {}
    for group, tensors in checkpoint.tensors.items():
        sums[f"{group}{SUFFIX}"] = tensor_file.write(folder / f"{group}{SUFFIX}", tensors)
    state = json.dumps({**checkpoint.state, "step": checkpoint.step}).encode()
    (folder / _STATE).write_bytes(state)
    sums[_STATE] = hashlib.sha256(state).hexdigest()
    (folder / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def load(folder: Path, verified: VerifiedCheckpoints | None = None) -> Checkpoint:
    """Reads a checkpoint after checking every file against its checksum, unless it is `verified` already.

    Raises CheckpointError.
    """
    sums = _checked(folder, verified)
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        tensors = {}
        for name in sums:
            if name.endswith(SUFFIX):
                tensors[name.removesuffix(SUFFIX)] = load_file(folder / name)
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
    verified: VerifiedCheckpoints | None = None,
) -> Path | None:
    """The newest intact checkpoint in `save_to`; damaged ones and those of another training are passed by.

    Args:
        save_to: folder of checkpoints.
        at_most: its step, or an earlier one.
        identity: of the training, as its state says it; empty: any.
        unusable: checkpoints that were found to be so.
        verified: checkpoints that need not be read to see whether they are intact; takes those that were.
    """
    for step in sorted(_steps(save_to), reverse=True):
        folder = save_to / folder_name(step)
        if (at_most is not None and step > at_most) or folder in unusable:
            continue
        with contextlib.suppress(CheckpointError):
            _checked(folder, verified)
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
    verified: VerifiedCheckpoints | None = None,
) -> Path | None:
    """The newest usable checkpoint of a trial, whichever claim wrote it; arguments as `latest` has them."""
    newest: Path | None = None
    for folder in (trial_checkpoints, *sorted(trial_checkpoints.glob(f"{_CLAIM}*"))):
        checkpoint = latest(folder, at_most, identity, unusable, verified)
        if checkpoint is not None and (newest is None or step_of(checkpoint) > step_of(newest)):
            newest = checkpoint
    return newest


def keep_only_newest(trial_checkpoints: Path, token: int, newest: Path | None) -> None:
    """Keeps the checkpoint `newest`, if there is one, and deletes all others of the claim `token` and of earlier ones.

    Later claims belong to another process and are left alone.
    """
    claimed = claim_folder(trial_checkpoints, token)
    keep_only(trial_checkpoints, [])  # written by a version without claims
    for folder in trial_checkpoints.glob(f"{_CLAIM}*"):
        if newest is not None and folder == newest.parent:
            keep_only(folder, [step_of(newest)])
        elif folder == claimed:
            keep_only(folder, [])
        elif folder.name < claimed.name:
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


def _checked(folder: Path, verified: VerifiedCheckpoints | None = None) -> dict[str, str]:
    """The manifest, once every file agrees with it; raises CheckpointError."""
    is_verified = verified is not None and folder in verified
    try:
        sums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if not is_verified and _sha256(folder / name) != expected:
                raise CheckpointError(f"{folder}: {name} does not match its checksum")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if _STATE not in sums:
        raise CheckpointError(f"{folder}: no {_STATE}")
    if verified is not None and not is_verified:
        verified.add(folder)
    return dict(sums)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
