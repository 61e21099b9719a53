"""What a study's checkpoints will take of the disk, as `run --dry-run` says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.execution import checkpoint_gc
from search.space.budget import Budget
from tmsearch.formatting import file_size
from tmsearch.training import saving
from tmsearch.training.saving import Rates


@dataclass(frozen=True)
class DiskPlan:
    """What is expected, in bytes; `rungs` are those whose checkpoints are worth saving, `kept` how many fit."""

    checkpoint_bytes: int
    budget_bytes: float
    rungs: list[int]
    kept: int

    @property
    def bytes(self) -> int:
        """What checkpoints of paused configurations take at most; each worker writes one more."""
        return self.kept * self.checkpoint_bytes


def disk_plan(
    budget: Budget, folder: Path, trials: int, checkpoint_bytes: int, step_seconds: float, is_gpu: bool
) -> DiskPlan:
    """The disk's part of a study's plan, for its largest model.

    Args:
        budget: the space file's.
        folder: of the studies; it need not exist.
        trials: configurations of the study, all of which may be paused at once.
        checkpoint_bytes: what one checkpoint takes.
        step_seconds: what a step takes.
        is_gpu: whether checkpoints are copied and written beside the training.
    """
    rungs = saving.saved_rungs(budget.rungs, step_seconds, checkpoint_bytes, Rates(is_gpu))
    room = checkpoint_gc.disk_budget(folder, budget.disk_gb)
    fitting = int(room // max(1, checkpoint_bytes))
    return DiskPlan(checkpoint_bytes, room, rungs, min(trials, fitting) if rungs else 0)


def disk_line(plan: DiskPlan, budget: Budget, trials: int) -> str:
    """The plan of the disk in one line."""
    size = f"{file_size(plan.checkpoint_bytes, 2)} a checkpoint"
    retrained = [str(rung) for rung in budget.rungs[:-1] if rung not in plan.rungs]
    if not plan.rungs:
        return f"disk: {size}; none is kept, since training again is sooner than saving"
    line = f"disk: {size}, saved at {', '.join(map(str, plan.rungs))}"
    if retrained:
        line += f" (not at {', '.join(retrained)}: sooner trained again)"
    line += f"; at most {file_size(plan.bytes)} for paused configurations"
    if plan.kept < trials:
        line += f", {plan.kept} of {trials}: the others train again if promoted"
    return f"{line} (budget.disk_gb), and one more while a worker trains"
