"""The application's errors: their base, those that more than one package raises, and what a machine may lack."""

from __future__ import annotations

import errno
import os

# What an operating system refuses for want of something, and what to do about it.
_DISK = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room: the quota is used up",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "it takes no files",
    errno.EIO: "the disk fails",
}
_LIMITS = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has no more of them",
    errno.ENOMEM: "free memory, or raise its limit (ulimit -v)",
    errno.EAGAIN: "raise the limits of processes and memory (ulimit -u, ulimit -v)",
}


class TmsearchError(Exception):
    """Base of every error that tmsearch itself raises."""


class InputError(TmsearchError):
    """A person's mistake in data, models or files: one line that names file, key and fix. The command exits with 2."""


class UnavailableError(InputError):
    """What only this machine lacks, such as space or the network; another machine may have it."""


class CheckpointError(TmsearchError):
    """A checkpoint that is cut, altered, or of another training: its folder and what is wrong."""


def is_disk_problem(error: BaseException) -> bool:
    """Whether a disk is full, read-only or broken."""
    return isinstance(error, OSError) and error.errno in _DISK


def machine_problem(error: BaseException) -> str | None:
    """What this machine lacks, in one line, where that is what the error says; None for any other error."""
    advice = _DISK | _LIMITS
    if isinstance(error, OSError) and error.errno in advice:
        return f"{describe_os_error(error)}; {advice[error.errno]}"
    if "can't start new thread" in str(error):
        return f"{error}; {_LIMITS[errno.EAGAIN]}"
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):
        return f"{os.strerror(errno.ENOMEM)}; {_LIMITS[errno.ENOMEM]}"
    return None


def describe_os_error(error: OSError) -> str:
    """What the operating system said and of which file; a library's own words where there is no number."""
    if error.errno is None:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    said = error.strerror or os.strerror(error.errno)
    return f"{said}: {error.filename}" if error.filename else said
