"""Where a study's files lie on disk, and how a file appears there as a whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DEFAULT_URL = "sqlite:///studies/tmsearch.db"  # of the storage
ARTIFACTS = "artifacts"  # the folder of all studies' artifacts, beside the studies' own folders
CHECKPOINTS = "checkpoints"
CLAIM_PREFIX = "claim-"
# Names of what must never be read: a checkpoint that is being written or removed, a folder that waits for removal.
PENDING_PREFIX = ".pending-"
DISCARDED_SUFFIX = ".discarded"


def study_folder(studies_folder: Path, name: str) -> Path:
    """The files of a study: its trials' configurations, checkpoints, per-clip tables and TensorBoard events."""
    return studies_folder / name


def trial_folder(study_folder: Path, number: int) -> Path:
    """The files of one trial."""
    return study_folder / "trials" / f"{number:04d}"


def claim_folder(trial_folder: Path, token: int) -> Path:
    """The checkpoints of one claim: a worker that lost its lease without knowing writes to a folder of its own."""
    return trial_folder / CHECKPOINTS / f"{CLAIM_PREFIX}{token:06d}"


def saved_checkpoints(trial_folder: Path) -> list[Path]:
    """Every finished checkpoint of a trial, of any claim, by name."""
    folders = (trial_folder / CHECKPOINTS).glob(f"{CLAIM_PREFIX}*/*")
    return sorted(path for path in folders if path.is_dir() and not path.name.startswith("."))


def discarded(folder: Path) -> Path:
    """The name under which a folder waits for its removal."""
    return folder.with_name(folder.name + DISCARDED_SUFFIX)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the process is killed.

    A kill leaves a hidden file beside it, `.NAME.PID`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)


def write_if_missing(path: Path, content: bytes) -> None:
    """Write a file whole unless it exists: of several processes that write it, the first wins."""
    own = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_atomically(own, content)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def remove(path: Path) -> list[str]:
    """Remove a file, a link, or a folder with all that is in it; returns what could not be removed, and why."""
    problems = []

    def record(function: object, failed: str, error: tuple[object, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            problems.append(f"{failed}: {getattr(error[1], 'strerror', None) or error[1]}")

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=record)
        return problems
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    return problems


def locked_folder(folder: Path) -> Path | None:
    """The first folder, from `folder` down, whose files this process cannot remove; None: it can remove all."""

    def may_hold_files(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            unreadable.append(Path(str(error.filename)))

    unreadable: list[Path] = []
    for parent, names, files in os.walk(folder, onerror=may_hold_files):
        if (names or files) and not os.access(parent, os.W_OK | os.X_OK):
            return Path(parent)
    return unreadable[0] if unreadable else None


def links_to_folders(folder: Path) -> list[Path]:
    """Every link below the folder that leads to another folder; a removal leaves what is there."""
    links = []
    for parent, names, _ in os.walk(folder):
        links += [Path(parent, name) for name in names if Path(parent, name).is_symlink()]
    return links
