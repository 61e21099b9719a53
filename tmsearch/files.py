"""Files that are replaced as a whole: a killed process leaves the old content or the new."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

SCRATCH = "*.part"  # glob of the files that killed processes leave behind


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a scratch path beside `file` to write to, which takes the place of `file` when the block ends.

    Where the block raises, `file` stays as it was. Folders are made as needed. The scratch path does not contain the
    name of `file`: TensorBoard would read any file with `tfevents` in its name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        yield scratch
        scratch.replace(file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_atomically(file: Path, content: str | bytes) -> None:
    """Replaces `file` by `content`, text in UTF-8, once that is on the disk."""
    with replacing(file) as scratch, scratch.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


def as_os_error(error: Exception, file: Path) -> OSError:
    """The operating system's error that a library of Rust reports in words: `... (os error 28)`."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    if match is None:
        return OSError(f"{file}: {error}")
    number = int(match[1])
    return OSError(number, os.strerror(number), str(file))
