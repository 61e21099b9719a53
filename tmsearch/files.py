"""Files and folders that are written as a whole: a killed process leaves what was there before, or the new."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
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


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty scratch folder beside `folder`, which gets its name once the block ends and its files are on disk.

    Where the block raises, no folder is left. What a killed process left of its scratch folder is deleted by the next
    one that writes `folder`.

    Raises:
        FileExistsError: `folder` exists.
        BlockingIOError: Another process is writing it.
    """
    scratch = folder.with_name(f".{folder.name}{SCRATCH.removeprefix('*')}")
    scratch.mkdir(exist_ok=True)
    with _locked(scratch):
        try:
            if folder.exists() or folder.is_symlink():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
            _empty(scratch)
            yield scratch
            _to_disk([path for path in scratch.rglob("*") if path.is_file()])
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the block; the system lets go of the lock however this one ends.

    Windows opens no folders, and renames none with an open file in it: there a file beside the folder is locked.
    """
    if sys.platform == "win32":
        import msvcrt

        beside = folder.with_name(f"{folder.name}.lock")
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT)
        try:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError as error:
                raise BlockingIOError(*error.args) from None
            yield
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # another process waits with it
                beside.unlink()
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk.

    Windows flushes only what was opened to be written, and no folders.
    """
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _to_disk(files: Sequence[Path]) -> None:
    """Waits until new files are on the disk, whichever library wrote them, and gives them the mode of a new file."""
    for folder in {file.parent for file in files}:
        follow_umask(*(file for file in files if file.parent == folder))
    for file in files:
        sync(file)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
