"""The plan that `run --dry-run` prints: what would be trained on what, and about how long it takes."""

from __future__ import annotations

from typing import Any

from search.execution.messages import Checked
from search.samplers import repeats
from search.space.search_space import Choice, Space
from search.storage.database import Storage
from tmsearch.cli.view.format import short_value
from tmsearch.config import TrainConfig
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import DataFacts, ModelNeeds


def candidates(space: Space) -> list[dict[str, Any]]:
    """One set of parameters for each model that the space may train, for a check of the model and its cost."""
    return [{**space.train, "model": name, "max_steps": space.budget.max_steps} for name in models(space)]


def models(space: Space) -> list[str]:
    """The checkpoints that the space may train."""
    searched = space.search.get("model")
    if isinstance(searched, Choice):
        return [str(name) for name in searched.values]
    return [str(space.train.get("model", TrainConfig.model))]


def data_line(dataset: str, data: DataFacts) -> str:
    """A dataset in one line: its size and how it is split."""
    dropped = f", {len(data.dropped)} dropped" if data.dropped else ""
    return (
        f"data {short_value(dataset)}: {data.clips} clips, {data.seconds / 60:.1f} min{dropped}; "
        f"{len(data.train)} to train, {len(data.validation)} to validate, {len(data.test)} locked as test"
    )


def _size_remark(space: Space, trials: int) -> str:
    """How many configurations the space holds, where they are fewer than are to be tried."""
    held = repeats.size(space.search)
    if trials <= held:
        return ""
    return f"; the space holds {held:.0f} configurations, the other {trials - held:.0f} will repeat them"


def print_plan(space: Space, storage: Storage, checked: Checked, trials: int) -> None:
    """Print a study's plan, time and memory estimated from the models' shapes and this machine's matrix rate."""
    print(
        f"study {space.study}: {trials} configurations of up to {space.budget.max_steps} steps; {storage.display_name}"
    )
    print(f"judged at {space.budget.judged}; strategy {space.budget.strategy}")
    data = DataFacts.from_json(checked.data)
    print(data_line(space.data["dataset"], data))
    for row in data.dropped[:10]:
        print(f"  dropped {row['name']}: {row['reason']}")
    print(f"searched: {', '.join(space.search)}{_size_remark(space, trials)}")
    rate = checked.flops_per_second
    assert rate is not None  # measured for a plan
    longest = 0.0
    for name, needs in checked.models.items():
        model = ModelNeeds.from_json(needs)
        seconds = model.flops_per_step / rate
        longest = max(longest, seconds)
        print(
            f"model {short_value(name)}: {model.parameters / 1e6:.1f} M parameters; about "
            f"{model.memory_bytes / 1e9:.1f} GB to train, {model.checkpoint_bytes / 1e9:.2f} GB a checkpoint, "
            f"{seconds:.2f} s a step"
        )
    most = longest * space.budget.max_steps * trials
    print(
        f"estimate: at most {clock_time(most)} of training on this machine if nothing were pruned "
        f"(from {rate / 1e9:.0f} GFLOP/s measured just now; evaluation comes on top)"
    )
    print("nothing was written; the same command without --dry-run starts the study")
