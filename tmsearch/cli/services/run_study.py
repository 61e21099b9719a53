"""A study at work: one worker in this process, or several that a launcher starts; then the closing lines."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search import study
from search.dashboard.publisher import Publisher
from search.errors import RunError, UserError
from search.execution import checkpoint_gc
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildProcess
from search.execution.launchers import LOCATION_VARIABLE, Launcher
from search.execution.launchers.gpus import gpus
from search.execution.launchers.local import pin_to_own_cores
from search.execution.lease import Interrupts, Listener
from search.execution.monitor import Monitor
from search.execution.worker import Outcome, Worker
from search.execution.worker_pool import OUTCOME_SECONDS, WorkerPool
from search.exit_codes import DONE, FAILED, INTERRUPTED
from search.imported import without_imported
from search.records import StudyRecord
from search.schedulers.scheduler import SchedulerState
from search.space.search_space import Choice, Space
from search.storage import ownership
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from search.storage.retry import Retry
from search.study import Summary
from tmsearch import job_server
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.cli.services.knobs import TRAIN
from tmsearch.cli.services.plan import beside_lines, data_line, measure_line
from tmsearch.cli.services.runs.workers import ONE_WORKER, WorkerPlan, make_launcher
from tmsearch.cli.services.tracking.follower import Following, followed
from tmsearch.cli.services.tracking.study_runs import StudyRuns, WakingListener
from tmsearch.cli.view.closing import closing_lines
from tmsearch.cli.view.progress import Display, ProgressPrinter
from tmsearch.cli.view.terminal import print_line
from tmsearch.files import write_atomically
from tmsearch.formatting import parse_duration
from tmsearch.tracking import choice
from tmsearch.trial.facts import StudyFacts
from tmsearch.trial.settings import TrialSettings
from tmsearch.version import code_version

# OpenMP's threads burn their core while they wait. Beside other work on the same cores that costs up to five times a
# step's time; sleeping at once costs a quarter of it on quiet cores. 2,000 turns of waiting cost next to nothing in
# either (tiny.en, 2 cores, 2026-11-23; studies/README.md).
THREADS_THAT_SLEEP_SOON = {"GOMP_SPINCOUNT": "2000"}
# torch's allocator grows its segments in place of making new ones: batches of changing lengths leave no holes that
# nothing fits into. Not measured on a GPU. The second name is the older one; either may hold a person's own settings.
ALLOCATOR = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
_ALLOCATOR_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@dataclass(frozen=True)
class StudyView:
    """How a person follows a study at work, and stops it.

    Attributes:
        say: takes a line before and after the work.
        new_display: follows the workers meanwhile; of the study at the start, the number of workers, the deadline by
            time.monotonic() and dollars an hour of each worker or None.
        last_lines: what to say of the study at the end.
        names_commands: whether `last_lines` names commands, which may need --storage.
        interrupts: what signals ask for, and whoever else stops the work.
    """

    say: Callable[[str], None] = print_line
    new_display: Callable[[Summary, int, float, float | None], Display] = ProgressPrinter
    last_lines: Callable[[Summary], list[str]] = closing_lines
    names_commands: bool = True
    interrupts: Interrupts = field(default_factory=Interrupts)


def torch_environment() -> dict[str, str]:
    """Variables that a process which trains should find, unless a person has set them: torch reads them once."""
    allocator = {} if any(name in os.environ for name in _ALLOCATOR_NAMES) or not gpus() else ALLOCATOR
    return {**THREADS_THAT_SLEEP_SOON, **allocator}


def new_trial_process() -> ChildProcess:
    """The training process, started with its first job; raises UserError for a wrong TMSEARCH_WATCHDOG."""
    return ChildProcess(
        job_server.command("tmsearch.trial"),
        environment=torch_environment(),
        silence_seconds=_silence_seconds(),
    )


def _silence_seconds() -> float | None:
    """How long a training process may show no sign of life: TMSEARCH_WATCHDOG, 0 for no limit; else by its own pace."""
    text = os.environ.get("TMSEARCH_WATCHDOG")
    if not text:
        return None
    if text.strip() == "0":
        return 0.0
    seconds = parse_duration(text)
    if seconds is None:
        raise UserError(f"TMSEARCH_WATCHDOG: {text!r} is not a duration; write 90s, 5m or 2h, or 0 for none")
    return seconds


def cache_folder() -> Path:
    """Where log-mels are kept between studies: TMSEARCH_CACHE, else XDG_CACHE_HOME/tmsearch."""
    folder = os.environ.get("TMSEARCH_CACHE")
    if folder:
        return Path(folder).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmsearch"


def run_study(
    ledger: Ledger,
    child: ChildProcess,
    timeout: float | None,
    workers: WorkerPlan = ONE_WORKER,
    track: Sequence[str] | None = None,
    view: StudyView | None = None,
) -> int:
    """Work on a study until it is finished, stopped, or out of time.

    Args:
        ledger: the study's.
        child: the training process of a worker in this process.
        timeout: seconds; None: no limit.
        workers: how many there are and what starts them.
        track: trackers as --track names them; None: as before.
        view: how a person follows it; None: on the terminal.

    Returns:
        An exit code.

    Raises:
        RunError: a worker stopped the study, with its reason.
        InputError: a tracker is unknown or not installed.
    """
    deadline = time.monotonic() + timeout if timeout else math.inf
    summary = study.summarize(ledger)
    folder = ownership.claimed_folder(ledger)
    _write_space(folder, summary.record)
    view = view or StudyView()
    interrupts = view.interrupts
    interrupts.on_leave = ledger.storage.hurry
    display = view.new_display(summary, workers.count, deadline, workers.price)
    with interrupts.handle_signals(), display:
        _say_head(ledger, summary, display)
        shared = workers.shared_gpus()
        if shared:
            display.say(shared)
        with _tracked(ledger, folder, track, display, interrupts) as listener:
            if workers.in_this_process:
                outcome = _worker(ledger, child, folder, summary, listener).run(interrupts, deadline)
            else:
                launcher = make_launcher(ledger, folder, workers, timeout)
                outcome = _pool(ledger, summary, launcher, workers.count, listener, folder).run(interrupts, deadline)
    # A server that restarts in this very moment is back soon, and all is saved.
    retry = Retry(lambda text: None, lambda: interrupts.leave, OUTCOME_SECONDS)
    summary = retry.call(lambda again: study.summarize(ledger))
    lines = [*_outcome_lines(outcome, summary.record.name), *_more_lines(outcome, summary)]
    for line in [*lines, *view.last_lines(summary)]:
        view.say(line)
    if view.names_commands and ledger.storage.url != open_storage().url:  # the commands just printed need the option
        view.say(f"each with --storage {shlex.quote(ledger.storage.display_name)}")
    return _exit_code(outcome, summary)


def _say_head(ledger: Ledger, summary: Summary, display: Display) -> None:
    record = summary.record
    space = Space.from_json(dict(record.space))
    display.say(
        f"study {record.name}: {record.trials} configurations, judged at {space.budget.judged}; "
        f"{ledger.storage.display_name}"
    )
    data = StudyFacts.from_json(summary.facts).known_data
    for line in (data_line(space.data["dataset"], data), *beside_lines(data)):
        display.say(line)
    display.say(measure_line(space, data))


@contextlib.contextmanager
def _tracked(
    ledger: Ledger, folder: Path, track: Sequence[str] | None, display: Display, interrupts: Interrupts
) -> Iterator[Listener]:
    """The listener of the workers; trackers are kept up to date within the block, and caught up at its end."""
    names = choice.choose(track, folder)
    if track or names:
        choice.remember(names, folder)
    if not names:
        yield display
        return
    runs = StudyRuns(ledger, folder)
    for name in names:
        display.say(choice.where(name, folder, runs.project))
    with followed(names, Following(folder, runs, display.notice, lambda: interrupts.stop)) as wake:
        yield WakingListener(display, wake)


def _worker(ledger: Ledger, child: ChildProcess, folder: Path, summary: Summary, listener: Listener) -> Worker:
    """The only worker, in this process."""
    pin_to_own_cores()
    space = Space.from_json(dict(summary.record.space))
    child.log_to(folder / "worker.log")
    url = os.environ.get("TMSEARCH_CHECKPOINTS")
    return Worker(
        ledger,
        space,
        TRAIN,
        child,
        folder,
        _settings(space, StudyFacts.from_json(summary.facts), folder).to_json(),
        listener,
        location=os.environ.get(LOCATION_VARIABLE) or _location(),
        version=code_version(),
        checkpoint_store=CheckpointStore(url, ownership.unique_name(ledger), listener.notice) if url else None,
        annotator=StudyAnnotator(ledger, listener.notice),
    )


def _location() -> str:
    slurm_job = os.environ.get("SLURM_JOB_ID")
    return f"Slurm job {slurm_job}" if slurm_job else "local"


def _settings(space: Space, facts: StudyFacts, folder: Path) -> TrialSettings:
    """What every segment's job has in common."""
    choices = {name: list(values.values) for name, values in space.search.items() if isinstance(values, Choice)}
    return TrialSettings(
        data=dict(space.data),
        max_steps=space.budget.max_steps,
        threads=facts.known_threads,
        cache=str(cache_folder()),
        tensorboard=str(folder / "tensorboard"),
        choices=choices,
        objective=space.budget.objective,
        keep_weights=facts.confirms is not None,  # confirm's models are scored once more, or merged
        shares_checkpoints=bool(os.environ.get("TMSEARCH_CHECKPOINTS")),
    )


def _pool(
    ledger: Ledger, summary: Summary, launcher: Launcher, count: int, listener: Listener, folder: Path
) -> WorkerPool:
    """Several workers, each a process of its own; this one publishes and prints what they do."""
    space = Space.from_json(dict(summary.record.space))
    publisher = Publisher(ledger, space, listener.notice, StudyAnnotator(ledger, listener.notice))
    budget = space.budget

    def clean_up() -> None:
        checkpoint_gc.clean_up(ledger, budget.scheduler_config, folder, budget.disk_gb)

    return WorkerPool(launcher, count, ledger, Monitor(ledger, listener), listener.notice, publisher, clean_up)


def _outcome_lines(outcome: Outcome, name: str) -> list[str]:
    if outcome == "stopped":
        return [f"stopped as requested, everything is kept; `tmsearch resume {name}` continues"]
    if outcome == "timeout":
        return [f"the time is up, everything is kept; `tmsearch resume {name}` continues"]
    if outcome == "interrupted":
        return [f"interrupted, everything is kept; the same command, or `tmsearch resume {name}`, continues"]
    return []


def _more_lines(outcome: Outcome, summary: Summary) -> list[str]:
    """What more training would buy, where a plan was spent and trials were left that could still win."""
    config = Space.from_json(dict(summary.record.space)).budget.scheduler_config
    if outcome != "done" or not config.is_planned:
        return []
    from search.schedulers import planned  # numpy

    total = summary.record.trials
    state = SchedulerState(config, without_imported(summary.history), total)
    more = planned.more_would_buy(state)
    if not more.trials:
        return []
    count = len(more.trials)
    left = "1 pruned trial could still win, with" if count == 1 else f"{count} pruned trials could still win, with"
    wider = config.planned_trainings(2 * total) - planned.spent_trainings(state)
    return [
        f"the plan of {config.planned_trainings(total):.1f} trainings in full is spent; {left} {more.trainings:.1f} "
        f"more; --trials {2 * total} plans {wider:.1f} more, for new ones and these"
    ]


def _exit_code(outcome: Outcome, summary: Summary) -> int:
    if outcome == "interrupted":
        return INTERRUPTED
    if outcome == "stopped" and summary.record.stop_reason:
        raise RunError(summary.record.stop_reason)
    if outcome == "done" and summary.best is None:
        return FAILED
    return DONE


def _write_space(folder: Path, record: StudyRecord) -> None:
    """A copy for a person to read; the space that counts is in the database."""
    import yaml

    file = folder / "space.yaml"
    if not file.exists():
        write_atomically(file, yaml.safe_dump(dict(record.space), sort_keys=False, allow_unicode=True))
