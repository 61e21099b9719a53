"""The command line without a process of its own: as quick as a function call, for what needs no process to be tested.

What a command prints, its exit code and the files that it leaves are those of a real one. Signals, terminals and what
is imported when are not: tests of those start a process, by `tests.support.command.tmsearch`.
"""

import collections
import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from search.execution import messages, wire
from tests.support.command import environment
from tmsearch.cli.main import main
from tmsearch.cli.services import run_study
from tmsearch.cli.services.annotator import StudyAnnotator


class InProcessTrial:
    """The training process's jobs, run at once in this process: what `search.execution.ChildProcess` is asked for."""

    def __init__(self):
        from tmsearch.trial.workbench import Workbench

        self._workbench = Workbench()
        self._events = collections.deque()
        self.silence_seconds = None
        self.stderr_lines = collections.deque(maxlen=200)
        self.pid = None

    def log_to(self, log):
        """Nothing is logged."""

    def send_job(self, job):
        """Run a job to its end; its messages are kept until they are received, in the form that a process sends."""
        from tmsearch.trial.__main__ import answer

        job = messages.job_from_json(wire.decode(wire.encode(job.to_json())))
        for event in [*self._reported(job, answer)]:
            self._events.append(wire.decode(wire.encode(event.to_json())))

    def _reported(self, job, answer):
        reported = []
        last = answer(self._workbench, job, reported.append, lambda: False)
        return [*reported, last]

    def event(self, timeout):
        """The next message; None where there is none."""
        return messages.event_from_json(self._events.popleft()) if self._events else None

    def kill(self):
        """There is no process to end."""

    close = kill


@contextlib.contextmanager
def in_folder(folder: Path, **more: str) -> Iterator[None]:
    """What runs within the block finds a person's folder and variables, and trains in this process."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment(folder, **more), clear=True))
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(mock.patch.object(run_study, "ChildProcess", return_value=InProcessTrial()))
        # Pictures and sounds are made by a process of their own: tests of real commands have them.
        no_media = {"reason": "not made here"}
        stack.enter_context(mock.patch.object(StudyAnnotator, "_make_media", return_value=no_media))
        yield


def tmsearch(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as `tests.support.command.tmsearch` does, in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with in_folder(folder, **more), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            returncode = main(words)
        except SystemExit as exit:
            returncode = exit.code or 0
    return subprocess.CompletedProcess(words, returncode, output.getvalue(), errors.getvalue())


def status(folder: Path, study: str = "small", *words: str) -> dict:
    """What `status --json` says of a study."""
    done = tmsearch(folder, "status", study, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
