"""Files that are replaced as a whole: a killed process leaves the old content or the new."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

SCRATCH = "*.part"  # glob of the files that killed processes leave behind


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a scratch path beside `file` to write to, which takes the place of `file` when the block ends.

    Where the block raises, `file` stays as it was. Folders are made as needed. The scratch path does not contain the
    name of `file`: TensorBoard would read any file with `tfevents` in its name. The file's mode follows the umask.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        yield scratch
        follow_umask(scratch)
        scratch.replace(file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_atomically(file: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Replaces `file` by `content`, text in UTF-8 or pieces of bytes, once that is on the disk."""
    if isinstance(content, str):
        content = content.encode()
    pieces = (content,) if isinstance(content, bytes) else content
    with replacing(file) as scratch, scratch.open("wb") as stream:
        stream.writelines(pieces)
        stream.flush()
        os.fsync(stream.fileno())


def follow_umask(*paths: Path) -> None:
    """Gives files of one folder that only their owner may read, as safetensors writes them, the mode of a new file."""
    private = [path for path in paths if not path.stat().st_mode & 0o077]
    if not private:
        return
    probe = private[0].with_name(f".{os.getpid()}-{os.urandom(4).hex()}.part")
    probe.touch()  # reading the umask itself would change it for every thread
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in private:
        with contextlib.suppress(PermissionError):  # a file system without modes
            path.chmod(mode)


def as_os_error(error: Exception, file: Path) -> OSError:
    """The operating system's error that a library of Rust reports in words: `... (os error 28)`."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    if match is None:
        return OSError(f"{file}: {error}")
    number = int(match[1])
    return OSError(number, os.strerror(number), str(file))
