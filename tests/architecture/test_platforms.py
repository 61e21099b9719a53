"""What only Linux or only POSIX has is used where it is guarded, so that commands start on macOS and Windows."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("search", "tmsearch") for path in (ROOT / package).rglob("*.py"))
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        "fork", "getgid", "getuid", "geteuid", "killpg", "mkfifo", "nice", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW",
        "O_NONBLOCK", "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "uname",
    },
    "signal": {"SIGALRM", "SIGCONT", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "setitimer"},
    "socket": {"AF_UNIX"},
}  # fmt: skip
# Where they stand behind a look at sys.platform, which mypy's --platform win32 and darwin hold them to.
GUARDED = {
    "search/platforms.py",
    "tmsearch/files.py",
    "tmsearch/job_server.py",  # prctl, nice
    "tmsearch/machine/survey.py",
}

# Blocks what Windows lacks, and torch; then imports every module that a command needs before it trains.
START = """
import importlib, os, pkgutil, signal, subprocess, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
for name in ["torch", *sys.argv[2].split(",")]:
    sys.modules[name] = None
for module, names in ((os, sys.argv[3]), (signal, sys.argv[4])):
    for name in names.split(","):
        if hasattr(module, name):
            delattr(module, name)
subprocess.CREATE_NEW_PROCESS_GROUP = 0x200
sys.platform = "win32"
for package in ("search", "tmsearch.cli"):
    top = importlib.import_module(package)
    for each in pkgutil.walk_packages(top.__path__, package + "."):
        if not each.name.endswith("__main__"):
            try:
                importlib.import_module(each.name)
            except ModuleNotFoundError as error:
                if error.name != "torch":
                    raise
                print(each.name)
from tmsearch.cli.parser import parse
parse(["status", "demo"])
"""
# Imported before, as they look at the system themselves.
OTHERS = (
    "argcomplete,concurrent.futures,jinja2,jiwer,multiprocessing.connection,numpy,optuna,optuna.importance,"
    "packaging.version,platform,pyarrow,rich.live,scipy.linalg,scipy.signal,socketserver,soundfile,soxr,sqlalchemy,uuid,"
    "wsgiref.simple_server,yaml"
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def posix_only(path: Path) -> list[str]:
    """What a module imports at its start, or uses anywhere, that Windows lacks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    problems = []
    for node in tree.body:
        imported = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        if isinstance(node, ast.ImportFrom):
            imported = {node.module}
        problems += [f"{name(path)}:{node.lineno}: import {module}" for module in imported & POSIX_MODULES]
    if name(path) not in GUARDED:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in POSIX_NAMES.get(ast.unparse(node.value), ()):
                problems.append(f"{name(path)}:{node.lineno}: {ast.unparse(node)}")
    return problems


def test_no_module_needs_what_windows_lacks():
    problems = [problem for path in MODULES for problem in posix_only(path)]
    assert problems == [], "see search/platforms.py"


def test_what_is_guarded_would_be_noticed_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "name", lambda path: path.name)
    module = tmp_path / "module.py"
    module.write_text("import fcntl\nimport os\n\n\ndef end(pid):\n    os.killpg(pid, 9)\n")
    assert posix_only(module) == ["module.py:1: import fcntl", "module.py:6: os.killpg"]


def test_every_command_starts_without_what_windows_lacks():
    names = [",".join(POSIX_MODULES), ",".join(POSIX_NAMES["os"]), ",".join(POSIX_NAMES["signal"])]
    done = subprocess.run(
        [sys.executable, "-c", START, OTHERS, *names],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["tmsearch.cli.services.tracking.final_training"], "nothing else needs torch"


def test_no_file_of_the_repository_has_a_name_that_windows_refuses():
    reserved = {"aux", "con", "nul", "prn", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
    for package in ("search", "tmsearch", "spaces", "studies", "tests", ".github"):
        for path in (ROOT / package).rglob("*"):
            assert not set(path.name) & set('<>:"\\|?*'), path
            assert path.name.split(".")[0].lower() not in reserved, path
            assert not path.name.endswith((".", " ")), path
