"""What differs between Linux, macOS and Windows: locks, signals, processes that end with their children, and cores."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# subprocess's code of a process that was killed for good. Windows knows no signals: there it is only a number.
KILLED = -9
TERMINATED = -15
CONTROL_C_EXIT = 0xC000013A  # Windows' code of a process that Ctrl-C or Ctrl-Break ended
_LOCK_FILE = ".tmsearch.lock"  # in a folder, where the system locks no folders


def termination_signals() -> tuple[int, ...]:
    """Signals by which a person, a scheduler or a shutdown asks a process to end: no fault of the process."""
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
    return tuple(int(getattr(signal, name)) for name in names if hasattr(signal, name))


def stop_signals() -> tuple[int, ...]:
    """Signals that ask a worker to save and exit: Slurm sends SIGUSR2, another process of Windows CTRL_BREAK."""
    names = ("SIGINT", "SIGTERM", "SIGUSR2", "SIGBREAK")
    return tuple(int(getattr(signal, name)) for name in names if hasattr(signal, name))


def signal_name(number: int) -> str:
    """SIGTERM and the like; the number where this system has no such signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "SIGKILL" if number == -KILLED else f"signal {number}"


def apart() -> dict[str, Any]:
    """Arguments of Popen: no Ctrl-C of this terminal reaches the process, and `kill_tree` ends all that it starts."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_exit(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that was started `apart` to save and exit."""
    with contextlib.suppress(OSError):  # it has ended; Windows: it has no console to hear it with
        if sys.platform == "win32":
            process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            process.send_signal(signal.SIGTERM)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started `apart`, with all that it has started, now; does not wait for that."""
    if sys.platform == "win32":
        # TerminateProcess leaves the children alone, and they can't be found once their parent is gone.
        if process.poll() is None:
            command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
            with contextlib.suppress(OSError):
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        with contextlib.suppress(OSError):
            process.kill()
        return
    with contextlib.suppress(OSError):  # none of its group is left
        os.killpg(process.pid, signal.SIGKILL)


def lock(descriptor: int) -> None:
    """Lock an open file against other processes until it is closed, however this one ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_to_lock(folder: Path) -> int:
    """A descriptor to `lock`: of the folder itself, or of a hidden file in it where folders can't be opened."""
    if sys.platform == "win32":
        return os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY)


def usable_cores() -> list[int]:
    """The cores that this process may use; all of them where the system does not say."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin_to_cores(cores: Sequence[int]) -> None:
    """Let this process, and what it starts, use these cores alone; nothing where the system pins no process."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, set(cores))
