"""Several workers of one study by the command line: the same results, each in its place, nobody's password shown."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from search.storage.database import open_storage
from search.study import open_study
from tests.support.command import SPACE, outcomes, start
from tests.support.command import tmsearch as tmsearch_process
from tests.support.in_process import status, tmsearch
from tmsearch.cli.main import _with_hidden_passwords
from tmsearch.version import code_version

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="watching processes needs Linux's /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study whose worker pool was killed in the middle of it and started again."""
    folder = tmp_path_factory.mktemp("workers") / "pool"
    folder.mkdir()
    text = SPACE.replace("rungs: [2, 4, 6]", "rungs: [2, 4, 6], strategy: bracket, eta: 2")
    (folder / "space.yaml").write_text(text)
    run = ("run", "--space", "space.yaml", "--trials", "4", "--workers", "2")
    pool = start(folder, *run)
    until = time.monotonic() + 120
    log = folder / "studies" / "small" / "workers" / "worker-0.log"
    while not (log.exists() and "step 2" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    shown = tmsearch(folder, "status", "small")
    pool.send_signal(signal.SIGKILL)
    pool.wait()
    again = tmsearch_process(folder, *run)
    assert again.returncode == 0, again.stderr + again.stdout
    return folder, shown, again


def test_a_killed_crew_comes_to_what_one_worker_comes_to(folder, tmp_path):
    study_folder, _, again = folder
    assert again.stderr == ""
    assert "\nbest: trial" in again.stdout
    # The same threads: a study's results depend on them.
    (tmp_path / "space.yaml").write_text((study_folder / "space.yaml").read_text())
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        alone = tmsearch(tmp_path, "run", "--space", "space.yaml", "--trials", "4")
    finally:
        os.sched_setaffinity(0, cores)
    assert alone.returncode == 0, alone.stderr
    if len(cores) <= 3:  # two workers have one thread each
        assert outcomes(study_folder) == outcomes(tmp_path)


def test_status_says_who_works_where(folder):
    study_folder, shown, _ = folder
    lines = [line for line in shown.stdout.splitlines() if line.startswith("worker ")]
    assert 1 <= len(lines) <= 2
    assert all("(core" in line and len(line) <= 80 for line in lines), lines
    assert status(study_folder)["workers"] == []
    assert list(status(study_folder)["code"]) == [code_version()]


def test_doctor_finds_the_study_well(folder):
    study_folder = folder[0]
    done = tmsearch(study_folder, "doctor", "small")
    assert done.returncode == 0, done.stdout
    assert not any(line.startswith("bad") for line in done.stdout.splitlines())
    (study_folder / "studies" / "small" / "trials" / "0099").mkdir()
    broken = tmsearch(study_folder, "doctor", "small")
    assert broken.returncode == 1
    assert "0099" in broken.stdout
    assert "--repair" in broken.stdout
    assert tmsearch(study_folder, "doctor", "small", "--repair").returncode == 0
    assert tmsearch(study_folder, "doctor", "small", "--json").returncode == 0


def test_a_worker_finds_nothing_left_to_do(folder):
    done = tmsearch_process(folder[0], "worker", "small")
    assert done.returncode == 0, done.stderr
    storage = open_storage(f"sqlite:///{folder[0]}/studies/tmsearch.db")
    open_study(storage, "small").request_stop("trial 3: ZeroDivisionError")
    refused = tmsearch(folder[0], "worker", "small")
    assert refused.returncode == 2
    assert "ZeroDivisionError; `tmsearch resume small`" in refused.stderr
    assert "stopped: trial 3" in tmsearch(folder[0], "status", "small").stdout
    again = tmsearch_process(folder[0], "resume", "small")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "slurm"], "--storage postgresql://"),
        (["--on", "ray"], "--storage postgresql://"),
        (["--engine", "partition=gpu", "--workers", "2"], "--engine: belongs to --on slurm"),
        (["--engine", "partition=gpu"], "--engine: belongs to --on slurm"),
    ],
)
def test_what_an_engine_needs_is_said_in_one_line_before_anything_is_written(folder, tmp_path, words, message):
    before = sorted(tmp_path.iterdir())
    space = str(folder[0] / "space.yaml")
    commands = (
        (folder[0], "resume", "small"),
        (folder[0], "confirm", "small"),
        (tmp_path, "run", "--space", space),
        (tmp_path, "run", "--space", space, "--dry-run"),
    )
    for where, *command in commands:
        done = tmsearch(where, *command, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
    assert not (folder[0] / "studies" / "small-confirm").exists()


URLS = (
    "postgresql://me:hunter2@localhost/db",
    "postgresql://me:hun@hunter2@localhost/db",
    "postgresql://me:a hunter2@localhost/db",
    "postgresql://me@localhost/db?sslmode=prefer&password=hunter2",
    "postgresql:///db?sslpassword=hunter2",
)


@pytest.mark.parametrize("url", URLS)
def test_a_password_leaves_the_command_line_at_once(monkeypatch, url):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.delenv("TMSEARCH_HIDDEN_WORDS", raising=False)
    for words in (["worker", "x", "--storage", url], ["worker", "x", f"--storage={url}", "--", "y"]):
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "tmsearch", *words])
        _with_hidden_passwords(words)
        restarted = started.pop()
        assert not any("hunter2" in word for word in restarted)
        assert restarted[:5] == ["python", "-m", "tmsearch", "worker", "x"]
        assert _with_hidden_passwords(restarted[3:]) == words, "the new start reads what was given"
        assert "TMSEARCH_HIDDEN_WORDS" not in os.environ, "and passes nothing on"
    for words in (["resume", "x", "--notify", "http://hook/hunter2"], ["resume", "x", "--notify=http://hook/hunter2"]):
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "tmsearch", *words])
        _with_hidden_passwords(words)
        restarted = started.pop()
        assert not any("hook" in word for word in restarted)
        assert _with_hidden_passwords(restarted[3:]) == words
    words = ["worker", "x", "--storage", "postgresql://me@localhost/db", "--notify", "desktop"]
    assert _with_hidden_passwords(words) == words
    assert not started


@pytest.mark.parametrize("url", URLS)
def test_no_command_prints_a_password(tmp_path, url):
    unreachable = url.replace("@localhost", "@127.0.0.1:1").replace(":///db?", "://127.0.0.1:1/db?")
    for words in (("status", "x", "--storage", unreachable), ("status", "x", unreachable), ("show", "x", unreachable)):
        done = tmsearch(tmp_path, *words)
        assert done.returncode in (1, 2)
        assert "hunter2" not in done.stderr + done.stdout
        assert len(done.stderr.splitlines()) == 1


def test_a_wrong_password_url_is_said_without_it(tmp_path):
    done = tmsearch(tmp_path, "status", "x", "--storage", "postgresql://me:hunter2@127.0.0.1:1/db")
    assert done.returncode == 1
    assert "hunter2" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 1
