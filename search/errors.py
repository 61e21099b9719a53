"""Every error of the engine, by whose fault it is: a person's input, the run itself, or the database."""

from __future__ import annotations

import errno

# What an operating system refuses for want of something, with what to do about it.
_LIMITS = {
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: "out of memory; free some, or raise the limit (ulimit -v)",
    errno.EAGAIN: "no more processes or threads; raise the limits (ulimit -u, ulimit -v)",
    errno.ENOSPC: "No space left on device; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "the file is larger than the limit; raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk cannot be read or written (input/output error)",
}


class EngineError(Exception):
    """Base of all errors that `search` raises."""


class UserError(EngineError):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""


class RunError(EngineError):
    """The run failed through no fault of its input: one line. The command exits with 1."""


class MachineError(RunError):
    """This machine cannot do it, as its disk is full or a limit reached; another may."""


class StorageUnavailableError(RunError):
    """The database did not answer, or it cancelled this transaction; the caller may try again."""


def first_line(error: BaseException) -> str:
    """The first line of the error's text; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def machine_problem(error: BaseException) -> str | None:
    """What this machine lacks, in one line, where that is what the error says; None for any other error."""
    if isinstance(error, OSError) and error.errno in _LIMITS:
        path = f"{error.filename}: " if error.filename else ""
        return f"{path}{_LIMITS[error.errno]}"
    if isinstance(error, MemoryError):
        return _LIMITS[errno.ENOMEM]
    if "can't start new thread" in str(error):
        return _LIMITS[errno.EAGAIN]
    return None
