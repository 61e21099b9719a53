"""Workers as Slurm jobs, by submitit: one job a worker, with one GPU each by default."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.errors import RunError, UserError
from search.execution.launchers import LOCATION_VARIABLE, last_line, options
from search.exit_codes import INTERRUPTED

# Keys of --engine, as sbatch names them.
OPTIONS = {
    "partition": "sbatch --partition",
    "account": "sbatch --account",
    "qos": "sbatch --qos",
    "time": "sbatch --time, minutes or 1-12:00:00; none: the partition's own limit",
    "gpus_per_node": "GPUs of a worker (1); 0 on a cluster without",
    "gres": "sbatch --gres, instead of gpus_per_node",
    "cpus_per_task": "cores of a worker",
    "mem": "sbatch --mem, such as 64GB",
    "constraint": "sbatch --constraint",
    "nodelist": "sbatch --nodelist",
    "exclude": "sbatch --exclude",
    "setup": "a command to run first, such as `module load cuda`",
}
# Between queries of the controller, for all jobs at once; a job that it does not list any more has ended.
QUERY_SECONDS = 5.0
COMMAND_SECONDS = 30.0  # for one command, such as squeue, while the controller does not answer
# From Slurm's signal to the end of a job's time: enough to finish a step and to save.
SIGNAL_SECONDS = 120


def checked_options(texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE of --engine by key, once it is known that jobs can be submitted from here.

    Raises:
        UserError: an option is none of Slurm's, or submitit or Slurm is missing.
    """
    values = options(texts, OPTIONS)
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--on slurm: needs submitit: pip install 'tmsearch[slurm]'")
    if shutil.which("srun") is None:
        raise UserError("--on slurm: there is no srun on this machine; run it on a login node")
    return values


def _executor(folder: Path) -> Any:
    import submitit

    class Sbatch(submitit.SlurmExecutor):
        """Submits a command; submitit's own `submit` would write a pickle for the job to load."""

        def submit_command(self, command: str) -> str:
            return str(self._submit_command(command).job_id)

    return Sbatch(folder)


class SlurmLauncher:
    """Starts workers by `command`; their output goes to `logs`, a folder that every node must share.

    Args:
        options: as `checked_options` has them.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        options: Mapping[str, str],
        name: str,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        parameters = _parameters(options)
        setup = options.get("setup")
        self._executor = _executor(logs)
        self._executor.update_parameters(
            job_name=name,
            time=options.get("time"),
            signal_delay_s=SIGNAL_SECONDS,
            stderr_to_stdout=True,
            setup=[setup] if setup else None,
            additional_parameters={"requeue": True},
            **parameters,
        )
        self._queue = JobQueue()

    def start(self, slot: int) -> SlurmWorker:
        """Submit one worker. Raises RunError with Slurm's own message where it refuses."""
        files = self._logs / f"seat-{slot}-{time.time_ns()}"
        exit_file, start_file = files.with_suffix(".exit"), files.with_suffix(".start")
        # bash ignores the signals that its worker handles. A worker that was terminated writes no exit file: if
        # Slurm terminated it, the same job is requeued.
        script = (
            f": > {shlex.quote(str(start_file))}; "
            f'trap : TERM USR2; {LOCATION_VARIABLE}="Slurm job $SLURM_JOB_ID" {shlex.join(self._command)}; code=$?; '
            f"[ $code = {INTERRUPTED} ] || echo $code > {shlex.quote(str(exit_file))}"
        )
        # In the environment, which sbatch passes on: a command line or a script would show a password.
        before = {key: os.environ.get(key) for key in self._environment}
        os.environ.update(self._environment)
        try:
            job = self._executor.submit_command(f"bash -c {shlex.quote(script)}")
        except Exception as error:  # submitit raises errors of its own kind, with sbatch's message in them
            reason = last_line(str(error)) or type(error).__name__
            raise RunError(f"--on slurm: sbatch refused the job: {reason}") from None
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        return SlurmWorker(job, self._queue, start_file, exit_file, self._logs)

    def close(self) -> None:
        """Nothing is held; jobs that still run are Slurm's."""


def _parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """The options as sbatch takes them, without those of submitit's own: one GPU unless they say otherwise."""
    parameters: dict[str, Any] = {key: value for key, value in options.items() if key not in ("setup", "time")}
    if "gres" not in parameters:
        parameters.setdefault("gpus_per_node", "1")
    for key, value in parameters.items():
        if value.isdigit():
            parameters[key] = int(value)
    if not parameters.get("gpus_per_node", 1):
        del parameters["gpus_per_node"]
    return parameters


def _slurm_command(*words: str) -> str | None:
    """The output of one of Slurm's commands; None where it failed or its controller does not answer."""
    try:
        command = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if command.returncode else command.stdout


class JobQueue:
    """The states of this user's jobs, queried all at once."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._queried = -QUERY_SECONDS

    def state(self, job: str, since: float) -> str | None:
        """PENDING, RUNNING, ...; None if the controller, queried after `since` (monotonic), does not list the job."""
        if time.monotonic() - self._queried > QUERY_SECONDS:
            output = _slurm_command("squeue", "--noheader", "--me", "--states=all", "--format=%i %T")
            if output is not None:  # no answer does not mean that the jobs have ended
                lines = (line.split() for line in output.splitlines())
                self._states = {line[0]: line[1] for line in lines if len(line) == 2}
                self._queried = time.monotonic()
        if self._queried < since:
            return "PENDING"
        return self._states.get(job)


_ENDED_STATES = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")


class SlurmWorker:
    """A worker as a Slurm job; one that is preempted is requeued by Slurm and stays the same job."""

    def __init__(self, job: str, queue: JobQueue, start_file: Path, exit_file: Path, logs: Path) -> None:
        self.job = job
        self._queue = queue
        self._start_file = start_file
        self._exit_file = exit_file
        self._logs = logs
        self._submitted = time.monotonic()
        self._missing_since = 0.0

    def poll(self) -> int | None:
        code = self._exit_file.read_text().strip() if self._exit_file.exists() else ""
        if code.isdigit():
            return int(code)
        state = self._queue.state(self.job, self._submitted)
        if state is not None and state not in _ENDED_STATES:
            self._missing_since = 0.0
            return None
        # On a network disk the exit file may appear after the job has left the queue.
        self._missing_since = self._missing_since or time.monotonic()
        return None if time.monotonic() - self._missing_since < QUERY_SECONDS else -9

    def stop(self) -> None:
        # Slurm drops a signal for a job that runs nothing yet: one in the queue, or one whose script is being started.
        if self._queue.state(self.job, self._submitted) == "PENDING" or not self._start_file.exists():
            self.kill()
        else:
            _slurm_command("scancel", "--signal=TERM", self.job)

    def kill(self) -> None:
        _slurm_command("scancel", self.job)

    def last_line(self) -> str:
        for log in sorted(self._logs.glob(f"{self.job}_*.out")):
            line = last_line(log.read_text(errors="replace"))
            if line:
                return line
        return ""
