"""A study at work: one worker in this process, or several that an engine starts; and what is said at the end."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search import study
from search.dashboard.publisher import Publisher
from search.errors import RunError, UserError
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildProcess
from search.execution.launchers import LOCATION_VARIABLE, Launcher, options, ray, slurm
from search.execution.launchers.local import LocalLauncher, cores, gpus, pin_to_own_cores
from search.execution.launchers.ray import RayLauncher
from search.execution.launchers.slurm import SlurmLauncher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker import Outcome, Worker
from search.execution.worker_pool import WorkerPool
from search.paths import study_folder
from search.records import StudyRecord
from search.space.search_space import Choice, Space
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.cli.services.knobs import TRAIN
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.view.progress import ProgressPrinter, closing_lines
from tmsearch.files import write_atomically
from tmsearch.trial.facts import StudyFacts
from tmsearch.trial.settings import TrialSettings
from tmsearch.version import code_version

Answered = Callable[[Summary], list[str]]
# OpenMP's threads burn their core while they wait. Beside other work on the same cores that costs up to five times a
# step's time; sleeping at once costs a quarter of it on quiet cores. 2,000 turns of waiting cost next to nothing in
# either (tiny.en, 2 cores, 2026-11-23; studies/README.md).
THREADS_THAT_SLEEP_SOON = {"GOMP_SPINCOUNT": "2000"}


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers, and what starts them. None: one a GPU, one on a CPU."""

    workers: int | None = None
    on: str = "local"
    engine: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return self.workers or (max(1, len(gpus())) if self.on == "local" else 1)

    @property
    def threads(self) -> int:
        """Of each training: a study's results depend on it, so it is settled when the study is made."""
        beside = self.count if self.on == "local" and not gpus() else 1
        return max(1, len(cores()) // beside)


def worker_plan(arguments: argparse.Namespace) -> WorkerPlan:
    """Who is to work: --workers, --on and --engine."""
    return WorkerPlan(arguments.workers, arguments.on, tuple(arguments.engine))


def new_trial_process() -> ChildProcess:
    return ChildProcess([sys.executable, "-m", "tmsearch.trial"], environment=THREADS_THAT_SLEEP_SOON)


def cache_folder() -> Path:
    """Where log-mels are kept between studies: TMSEARCH_CACHE, else XDG_CACHE_HOME/tmsearch."""
    named = os.environ.get("TMSEARCH_CACHE")
    if named:
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmsearch"


def run_study(
    ledger: Ledger,
    child: ChildProcess,
    timeout: float | None,
    answered: Answered = closing_lines,
    hands: WorkerPlan | None = None,
) -> int:
    """Work on the study until all is done; prints what `answered` makes of the study then. The exit code."""
    hands = hands or WorkerPlan(workers=1)
    deadline = time.monotonic() + timeout if timeout else math.inf
    summary = study.summarize(ledger)
    record, space = summary.record, Space.from_json(dict(summary.record.space))
    folder = study_folder(ledger.storage.folder, record.name)
    folder.mkdir(parents=True, exist_ok=True)
    _keep_space(folder, record)
    interrupts = Interrupts()
    with interrupts.handle_signals(), ProgressPrinter(summary, hands.count, deadline) as display:
        _head(ledger, summary, display)
        if hands.on == "local" and hands.count == 1:
            outcome = _alone(ledger, child, folder, summary, display, interrupts, deadline)
        else:
            engine = make_engine(ledger, folder, hands, timeout)
            publisher = Publisher(ledger, space, display.notice, StudyAnnotator(ledger, display.notice))
            crew = WorkerPool(engine, hands.count, ledger, Monitor(ledger, display), display.notice, publisher)
            outcome = crew.run(interrupts, deadline)
    summary = study.summarize(ledger)
    for line in _ending(outcome, record.name) + answered(summary):
        print(line)
    if ledger.storage.url != open_storage().url:  # what it ends with works as it stands there only
        print(f"each with --storage {ledger.storage.display_name}")
    if outcome == "interrupted":
        return 130
    if outcome == "stopped" and summary.record.stop_reason:
        raise RunError(summary.record.stop_reason)
    return 1 if outcome == "done" and summary.best is None else 0


def _head(ledger: Ledger, summary: Summary, display: ProgressPrinter) -> None:
    record, space = summary.record, Space.from_json(dict(summary.record.space))
    judged = space.budget.judged
    display.say(
        f"study {record.name}: {record.trials} configurations, judged at {judged}; {ledger.storage.display_name}"
    )
    display.say(data_line(space.data["dataset"], StudyFacts.from_json(summary.facts).known_data))


def _alone(
    ledger: Ledger,
    child: ChildProcess,
    folder: Path,
    summary: Summary,
    display: ProgressPrinter,
    interrupts: Interrupts,
    deadline: float,
) -> Outcome:
    """One worker in this process."""
    pin_to_own_cores()
    space = Space.from_json(dict(summary.record.space))
    child.log_to(folder / "worker.log")
    url = os.environ.get("TMSEARCH_CHECKPOINTS")
    worker = Worker(
        ledger,
        space,
        TRAIN,
        child,
        folder,
        _settings(space, StudyFacts.from_json(summary.facts), folder).to_json(),
        display,
        location=os.environ.get(LOCATION_VARIABLE) or _place(),
        version=code_version(),
        checkpoint_store=CheckpointStore(url, ledger.study, display.notice) if url else None,
        annotator=StudyAnnotator(ledger, display.notice),
    )
    return worker.run(interrupts, deadline)


def _place() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"Slurm job {job}" if job else "local"


def _settings(space: Space, facts: StudyFacts, folder: Path) -> TrialSettings:
    """What every segment's job has in common."""
    return TrialSettings(
        data=dict(space.data),
        max_steps=space.budget.max_steps,
        threads=facts.known_threads,
        cache=str(cache_folder()),
        tensorboard=str(folder / "tensorboard"),
        choices={name: list(one.values) for name, one in space.search.items() if isinstance(one, Choice)},
        keep_weights=facts.confirms is not None,  # confirm's models are scored once more, or merged
    )


def make_engine(ledger: Ledger, folder: Path, hands: WorkerPlan, timeout: float | None) -> Launcher:
    """What starts the workers. The storage's URL goes through the environment: it may hold a password."""
    command = [sys.executable, "-m", "tmsearch", "worker", ledger.study]
    if timeout:
        command += ["--timeout", f"{timeout:.0f}s"]
    storage = ledger.storage
    file = storage.file
    url = f"sqlite:///{file}" if file else storage.url.render_as_string(hide_password=False)
    environment = {"TMSEARCH_STORAGE": url, "TMSEARCH_STUDIES": str(storage.folder)}
    logs = folder / "workers"
    if hands.on == "local":
        if hands.engine:
            raise UserError("--engine: belongs to --on slurm or --on ray; leave it out")
        return LocalLauncher(command, environment, logs, hands.count)
    if storage.is_sqlite:
        raise UserError(f"--on {hands.on}: workers of several machines need --storage postgresql://HOST/DATABASE")
    if hands.on == "slurm":
        return SlurmLauncher(command, environment, logs, options(hands.engine, slurm.OPTIONS), ledger.study)
    return RayLauncher(command, environment, options(hands.engine, ray.OPTIONS), ledger.study)


def _ending(outcome: str, name: str) -> list[str]:
    return {
        "done": [],
        "stopped": [f"stopped as asked, everything is kept; `tmsearch resume {name}` goes on"],
        "timeout": [f"the time is up, everything is kept; `tmsearch resume {name}` goes on"],
        "interrupted": [f"interrupted, everything is kept; the same command, or `tmsearch resume {name}`, goes on"],
    }[outcome]


def _keep_space(folder: Path, record: StudyRecord) -> None:
    """A copy to read; the one that counts is in the database."""
    import yaml

    file = folder / "space.yaml"
    if not file.exists():
        write_atomically(file, yaml.safe_dump(dict(record.space), sort_keys=False, allow_unicode=True))
