"""The plan that `run --dry-run` prints: what would be trained on what, and about how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.execution.messages import Checked
from search.samplers import repeats
from search.space.search_space import Choice, Space
from search.storage.database import Storage
from tmsearch.cli.view.format import short_value
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.formatting import clock_time
from tmsearch.languages import UNSPACED
from tmsearch.trial.facts import DataFacts, ModelNeeds


def candidates(space: Space) -> list[dict[str, Any]]:
    """Sets of parameters for a check of each model that the space may train.

    The first of a model is for its cost, with as many windows and as long ones as trials may have; the others have the
    adapters that its trials may have.
    """
    candidates = []
    dearest = {}
    for name in ("window_share", "window_seconds"):
        if name in space.search:
            dearest[name] = max(_possible_values(space, name, None))
    for name in models(space):
        params = {**space.train, **dearest, "model": name, "max_steps": space.budget.max_steps}
        candidates.append(params)
        candidates += [{**params, **adapters} for adapters in _adapters(space)]
    return candidates


def _adapters(space: Space) -> list[dict[str, Any]]:
    """Each choice of LoRA targets, where the space may train adapters."""
    rank = max(_possible_values(space, "lora_r", TrainConfig.lora_r))
    if not rank:
        return []
    targets = _possible_values(space, "lora_targets", TrainConfig.lora_targets)
    return [{"lora_r": rank, "lora_targets": names} for names in targets]


def _possible_values(space: Space, name: str, default: Any) -> list[Any]:
    """What a knob may be in a trial: each choice, or the ends of a range."""
    searched = space.search.get(name)
    if searched is None:
        return [space.train.get(name, default)]
    if isinstance(searched, Choice):
        return list(searched.values)
    return [searched.low, searched.high]


def models(space: Space) -> list[str]:
    """The checkpoints that the space may train."""
    return [str(name) for name in _possible_values(space, "model", TrainConfig.model)]


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


def measure_line(space: Space, data: DataFacts) -> str:
    """What is minimised, and after which normalizer."""
    from tmsearch.data import text_normalizer

    config = DataConfig(**data.normalized(space.data))
    normalizer = text_normalizer.describe(config.text_language, config.normalizer)
    line = f"minimised: {space.budget.measure}, after {normalizer}"
    if space.budget.objective != "cer" and config.text_language in UNSPACED:
        line += "; budget.objective: cer minimises CER"
    return line


def print_plan(
    space: Space, storage: Storage, checked: Checked, trials: int, remarks: Sequence[str] = (), exists: bool = False
) -> None:
    """Print a study's plan, time and memory estimated from the models' shapes and this machine's matrix rate."""
    print(
        f"study {space.study}: {trials} configurations of up to {space.budget.max_steps} steps; {storage.display_name}"
    )
    print(f"judged at {space.budget.judged}; strategy {space.budget.strategy}")
    data = DataFacts.from_json(checked.data)
    print(data_line(space.data["dataset"], data))
    for row in data.dropped[:10]:
        print(f"  dropped {row['name']}: {row['reason']}")
    print(measure_line(space, data))
    for remark in data.remarks:
        print(f"  {remark}")
    print(f"searched: {', '.join(space.search)}{_size_remark(space, trials)}")
    for remark in remarks:
        print(remark)
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
    verb = "continues" if exists else "starts"
    print(f"nothing was written; the same command without --dry-run {verb} the study")
