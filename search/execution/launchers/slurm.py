"""Workers as Slurm jobs, by submitit: one job a worker, with a GPU each unless it is told otherwise."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.errors import RunError, UserError
from search.execution.launchers import LOCATION_VARIABLE

# --engine KEY=VALUE, in sbatch's words.
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
# The controller is asked no oftener, for all jobs at once; a job that it does not list any more has ended.
ASK_SECONDS = 5.0
# Slurm sends it to a worker so many seconds before its time is up: enough to finish a step and to save.
SIGNAL_SECONDS = 120


def _executor(folder: Path) -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError("--on slurm: needs submitit: pip install 'tmsearch[slurm]'") from None

    class Sbatch(submitit.SlurmExecutor):
        """Submits a command. submitit's `submit` would write a pickle for the job to load, and we load none."""

        def submit_command(self, command: str) -> str:
            return str(self._submit_command(command).job_id)

    try:
        return Sbatch(folder)
    except RuntimeError:
        raise UserError("--on slurm: there is no srun on this machine; run it on a login node") from None


class SlurmLauncher:
    """`command` starts a worker. Jobs say what they have to say in `logs`, which every node must see."""

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
        given: dict[str, Any] = dict(options)
        setup = given.pop("setup", None)
        if "gres" not in given:
            given.setdefault("gpus_per_node", "1")
        given = {key: int(value) if value.isdigit() and key != "time" else value for key, value in given.items()}
        if not given.get("gpus_per_node", 1):
            del given["gpus_per_node"]
        self._executor = _executor(logs)
        self._executor.update_parameters(
            job_name=name,
            time=given.pop("time", None),
            signal_delay_s=SIGNAL_SECONDS,
            stderr_to_stdout=True,
            setup=[setup] if setup else None,
            additional_parameters={"requeue": True},
            **given,
        )
        self._queue = Queue()

    def start(self, seat: int) -> Job:
        """Submit one worker. Raises RunError with Slurm's own word where it refuses."""
        ending = self._logs / f"seat-{seat}-{time.time_ns()}.exit"
        # bash outlives the signals that its worker answers. A worker that was told to end (130) leaves no ending: if it
        # was Slurm that told it, the same job comes again.
        script = (
            f'trap : TERM USR2; {LOCATION_VARIABLE}="Slurm job $SLURM_JOB_ID" {shlex.join(self._command)}; code=$?; '
            f"[ $code = 130 ] || echo $code > {shlex.quote(str(ending))}"
        )
        # Through the environment, which sbatch passes on: a command line or a script would show a password.
        before = {key: os.environ.get(key) for key in self._environment}
        os.environ.update(self._environment)
        try:
            job = self._executor.submit_command(f"bash -c {shlex.quote(script)}")
        except Exception as error:  # submitit raises errors of its own kind, with sbatch's words in them
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = said[-1] if said else type(error).__name__
            raise RunError(f"--on slurm: sbatch refused the job: {why}") from None
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        return Job(job, self._queue, ending, self._logs)

    def close(self) -> None:
        """Jobs that still run are Slurm's."""


class Queue:
    """The states of our jobs, asked for all at once."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._asked = -ASK_SECONDS

    def state(self, job: str, since: float) -> str | None:
        """PENDING, RUNNING, ...; None where the controller, asked after `since`, knows it no more."""
        if time.monotonic() - self._asked > ASK_SECONDS:
            asked = subprocess.run(
                ["squeue", "--noheader", "--me", "--states=all", "--format=%i %T"], capture_output=True, text=True
            )
            if asked.returncode == 0:  # a controller that does not answer has forgotten nothing
                lines = (line.split() for line in asked.stdout.splitlines())
                self._states = {line[0]: line[1] for line in lines if len(line) == 2}
                self._asked = time.monotonic()
        if self._asked < since:
            return "PENDING"
        return self._states.get(job)


_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")


class Job:
    """One worker's job. A job that Slurm preempts is requeued by Slurm and stays the same job."""

    def __init__(self, job: str, queue: Queue, ending: Path, logs: Path) -> None:
        self.job = job
        self._queue = queue
        self._ending = ending
        self._logs = logs
        self._submitted = time.monotonic()
        self._missed = 0.0

    def poll(self) -> int | None:
        said = self._ending.read_text().strip() if self._ending.exists() else ""
        if said.isdigit():
            return int(said)
        state = self._queue.state(self.job, self._submitted)
        if state is not None and state not in _OVER:
            self._missed = 0.0
            return None
        # The end of a job and its file, on a disk of the network, are seen in any order.
        self._missed = self._missed or time.monotonic()
        return None if time.monotonic() - self._missed < ASK_SECONDS else -9

    def stop(self) -> None:
        if self._queue.state(self.job, self._submitted) == "PENDING":
            self.kill()
        else:
            subprocess.run(["scancel", "--signal=TERM", self.job], capture_output=True)

    def kill(self) -> None:
        subprocess.run(["scancel", self.job], capture_output=True)

    def last_line(self) -> str:
        for log in sorted(self._logs.glob(f"{self.job}_*.out")):
            said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            if said:
                return said[-1]
        return ""
