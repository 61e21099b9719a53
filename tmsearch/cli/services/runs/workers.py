"""How many workers a run has, what they cost, and what starts them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from search.errors import UserError
from search.execution.launchers import Launcher, ray, slurm
from search.execution.launchers.gpus import gpus, sharing
from search.execution.launchers.local import LocalLauncher
from search.execution.launchers.ray import RayLauncher
from search.execution.launchers.slurm import SlurmLauncher
from search.platforms import usable_cores
from search.storage.database import Storage
from search.storage.ledger import Ledger
from tmsearch import job_server
from tmsearch.tracking import choice


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers there are and what starts them: `on` is a launcher's name, `engine` its KEY=VALUE options.

    `workers` None: one a GPU, one on a CPU. `price`: dollars an hour of each; None: no money is mentioned.
    """

    workers: int | None = None
    on: str = "local"
    engine: tuple[str, ...] = ()
    price: float | None = None

    @property
    def count(self) -> int:
        if self.workers:
            return self.workers
        if self.on == "local":
            return max(1, len(gpus()))
        return 1

    @property
    def threads(self) -> int:
        """CPU threads of each training: a study's results depend on it, so it is fixed when the study is made."""
        threads = len(usable_cores())
        if self.on == "local" and not gpus():
            threads //= self.count
        return max(1, threads)

    @property
    def in_this_process(self) -> bool:
        return self.on == "local" and self.count == 1

    def shared_gpus(self) -> str | None:
        """What comes of more workers than this machine has GPUs, a line for a person; None where each has its own."""
        cards = len(gpus()) if self.on == "local" else 0
        if not cards or self.count <= cards:
            return None
        most = max(sharing(self.count, cards))
        return (
            f"--workers {self.count} with {cards} GPU{'s' if cards > 1 else ''}: up to {most} workers share one, each "
            f"within 1/{most} of its memory and at a part of its speed; --workers {cards} is usually faster"
        )


ONE_WORKER = WorkerPlan(workers=1)


def worker_plan(arguments: argparse.Namespace) -> WorkerPlan:
    """The workers that --workers, --on and --engine ask for, at what --price says, which not every command has."""
    price = getattr(arguments, "price", None)
    return WorkerPlan(arguments.workers, arguments.on, tuple(arguments.engine), price)


def make_launcher(ledger: Ledger, folder: Path, workers: WorkerPlan, timeout: float | None) -> Launcher:
    """What starts the workers.

    The storage's URL goes through the environment: it may hold a password.

    Raises:
        UserError: as `check_workers`.
        RunError: there is no cluster.
    """
    engine = check_workers(ledger.storage, workers)
    command = job_server.command("tmsearch", "worker", ledger.study)
    if timeout:
        command += ["--timeout", f"{timeout:.0f}s"]
    storage = ledger.storage
    environment = {"TMSEARCH_STORAGE": storage.whole_url, "TMSEARCH_STUDIES": str(storage.folder)}
    environment[choice.VARIABLE] = choice.NONE  # this process keeps the trackers up to date for all of its workers
    logs = folder / "workers"
    if workers.on == "local":
        return LocalLauncher(command, environment, logs, workers.count)
    if workers.on == "slurm":
        return SlurmLauncher(command, environment, logs, engine, ledger.study)
    return RayLauncher(command, environment, engine, ledger.study)


def check_workers(storage: Storage, workers: WorkerPlan) -> dict[str, str]:
    """The launcher's options by key; called before anything is written.

    Raises:
        UserError: the options, this machine or the storage do not fit what is to start the workers.
    """
    if workers.on == "local":
        if workers.engine:
            raise UserError("--engine: belongs to --on slurm or --on ray; leave it out")
        return {}
    if storage.is_sqlite:
        raise UserError(f"--on {workers.on}: workers of several machines need --storage postgresql://HOST/DATABASE")
    if workers.on == "slurm":
        return slurm.checked_options(workers.engine)
    return ray.checked_options(workers.engine)
