"""Linux, macOS and Windows, each played on this one by its own names in os, signal and sys."""

import os
import signal
import subprocess
import sys
import types

import pytest

from search import platforms

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals, and opens no folders")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which cores a process may use")


class Process:
    """A process that remembers how it was ended."""

    pid = 41

    def __init__(self, code=None):
        self.code, self.asked, self.killed = code, [], 0

    def poll(self):
        return self.code

    def send_signal(self, number):
        self.asked.append(number)

    def kill(self):
        self.killed += 1


@pytest.fixture
def windows(monkeypatch):
    """sys.platform and what Windows has; and none of what it lacks."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    for name in ("SIGHUP", "SIGUSR2", "SIGKILL"):
        monkeypatch.delattr(signal, name, raising=False)
    for name in ("killpg", "sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    held = set()

    def locking(descriptor, mode, count):
        key = os.fstat(descriptor).st_ino
        if key in held:
            raise PermissionError(13, "Permission denied")
        held.add(key)

    msvcrt = types.SimpleNamespace(locking=locking, LK_NBLCK=2, held=held)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setitem(sys.modules, "fcntl", None)  # an import fails
    return msvcrt


@pytest.fixture
def macos(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)


def test_windows_signals(windows):
    assert platforms.termination_signals() == (15, 2, 21)
    assert platforms.stop_signals() == (2, 15, 21)
    assert platforms.signal_name(9) == "SIGKILL"
    assert platforms.signal_name(15) == "SIGTERM"
    assert platforms.signal_name(99) == "signal 99"


@posix
def test_posix_signals():
    assert platforms.termination_signals() == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    assert platforms.stop_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    assert (platforms.KILLED, platforms.TERMINATED) == (-signal.SIGKILL, -signal.SIGTERM)


def test_windows_ends_a_process_with_its_children(windows, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    process = Process()
    platforms.kill_tree(process)
    assert commands == [["taskkill", "/F", "/T", "/PID", "41"]]
    assert process.killed == 1
    platforms.kill_tree(Process(code=0))
    assert len(commands) == 1, "its number may be another's by now"


def test_windows_asks_by_a_break_that_a_group_of_its_own_hears(windows):
    assert platforms.apart() == {"creationflags": 0x200}
    process = Process()
    platforms.ask_to_exit(process)
    assert process.asked == [1]


def test_windows_locks_a_file_in_the_folder(windows, tmp_path):
    first = platforms.open_to_lock(tmp_path)
    second = platforms.open_to_lock(tmp_path)
    platforms.lock(first)
    with pytest.raises(BlockingIOError):
        platforms.lock(second)
    assert [path.name for path in tmp_path.iterdir()] == [".tmsearch.lock"]
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_cores_where_none_can_be_assigned(system, request):
    request.getfixturevalue(system)
    assert platforms.usable_cores() == list(range(os.cpu_count() or 1))
    platforms.pin_to_cores([0])


@linux
def test_linux_tells_and_pins_cores():
    cores = platforms.usable_cores()
    assert cores == sorted(os.sched_getaffinity(0))
    platforms.pin_to_cores(cores)
    assert platforms.usable_cores() == cores


@posix
def test_a_lock_is_held_until_its_file_is_closed(tmp_path):
    first = platforms.open_to_lock(tmp_path)
    second = platforms.open_to_lock(tmp_path)
    platforms.lock(first)
    with pytest.raises(BlockingIOError):
        platforms.lock(second)
    os.close(first)
    platforms.lock(second)
    os.close(second)
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_process_that_is_killed_takes_what_it_started_along():
    program = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, **platforms.apart()) as process:
        assert int(process.stdout.readline()) > 0
        platforms.kill_tree(process)
        assert process.wait(timeout=20) == platforms.KILLED
        assert process.stdout.read() == b"", "what it started has its output open until it ends"
