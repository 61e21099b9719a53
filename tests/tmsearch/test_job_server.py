"""Processes of ours are started without what lies in a person's working folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, environment
from tmsearch import job_server

# Files that people have, or that have the name of a module which is imported early on.
NAMES = ("search", "tmsearch", "queue", "evaluate", "argparse")


STARTS = {"a person's": [sys.executable, "-m", "tmsearch"], "ours": [sys.executable, "-P", "-m", "tmsearch"]}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_persons_own_modules_are_not_imported(tmp_path, start):
    for name in NAMES[2:]:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of a person')")
    if start[1] == "-P":
        for name in NAMES[:2]:
            (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of a person')")
    command = [*start, "list"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no study in")


def test_a_checkout_that_is_not_installed_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert job_server.command("tmsearch.trial") == [sys.executable, "-m", "tmsearch.trial"]
    monkeypatch.chdir(Path("/"))
    assert job_server.command("tmsearch.trial", "a") == [sys.executable, "-P", "-m", "tmsearch.trial", "a"]
