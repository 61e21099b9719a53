"""The plan of `run --dry-run` and `tmsearch.plan`: what would be trained on what, and about how long it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.execution.messages import Checked
from search.samplers import repeats
from search.space.budget import Budget
from search.space.search_space import Choice, Space
from search.storage.database import Storage
from tmsearch.cli.services.disk_plan import disk_line, disk_plan
from tmsearch.cli.view.format import dollars, short_value
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.formatting import clock_time, file_size
from tmsearch.languages import UNSPACED
from tmsearch.model.cost import LABEL_TOKENS, Card, Clips, TrialCost, card_of, trial_cost
from tmsearch.trial.facts import DataFacts, ModelNeeds


def candidates(space: Space) -> list[dict[str, Any]]:
    """Sets of parameters for a check of each model that the space may train.

    The first of a model is for its cost, with as many windows and as long ones as trials may have, and all else that
    trials may need of the data; the others have the adapters and optimizers that its trials may have.
    """
    candidates = []
    dearest = {}
    for name in ("window_share", "window_seconds", "extra_share", "noise_db", "bpe_dropout"):
        if name in space.search:
            values = [value for value in _possible_values(space, name, None) if value is not None]
            dearest[name] = max(values, default=None)
    for name in models(space):
        params = {**space.train, **dearest, "model": name, "max_steps": space.budget.max_steps}
        candidates.append(params)
        candidates += [{**params, **adapters} for adapters in _adapters(space)]
        for optimizer in _possible_values(space, "optimizer", TrainConfig.optimizer):
            if optimizer != params.get("optimizer", TrainConfig.optimizer):
                candidates.append({**params, "optimizer": optimizer})
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


def beside_lines(data: DataFacts) -> list[str]:
    """What is trained on beside the dataset, a line each."""
    lines = []
    for row in data.beside:
        minutes = f"{row['seconds'] / 60:.1f} min"
        if "noise" in row:
            lines.append(f"noise {short_value(row['noise'])}: {row['recordings']} recordings, {minutes}")
            continue
        line = (
            f"extra {short_value(row['dataset'])}: {row['clips']} clips, {minutes}, share {row['share']:g}; train only"
        )
        if row["left_out"]:
            line += f"; {row['left_out']} left out, whose sentences are in validation or test"
        if "gains_db" in row:
            gains = ", ".join(f"{gain:.0f} dB at {hertz} Hz" for hertz, gain in row["gains_db"].items())
            line += f"; heard through the filter learnt from the data: {gains}"
        lines.append(line)
    return lines


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


def _spend_line(space: Space, trials: int) -> str:
    """What the study may spend, for a person."""
    config = space.budget.scheduler_config
    if not config.is_planned:
        return f"not planned: strategy {config.strategy} decides what is spent"
    from search.schedulers import planned  # numpy

    plan = config.planned_trainings(trials)
    expected = planned.expected_trainings(config, trials)
    past = f"; about {expected:.1f} with the configuration that it ends with" if expected > plan + 0.05 else ""
    return f"planned: {plan:.1f} trainings in full for {trials} configurations (budget.spend {config.spend}){past}"


@dataclass(frozen=True)
class StudyPlan:
    """What a study would train, and about how long it takes.

    Attributes:
        lines: for a person.
        trainings: as many trainings in full take as many steps.
        seconds: of training by all workers together; on a GPU of evaluation, too.
        dollars: at the price that was given; None: without one.
        exists: whether the study has begun.
    """

    lines: tuple[str, ...]
    trainings: float
    seconds: float
    dollars: float | None
    exists: bool

    def last_line(self, call: str) -> str:
        """That nothing was written, and what a `call` would do to the study."""
        return f"nothing was written; {call} {'continues' if self.exists else 'starts'} the study"


def study_plan(
    space: Space,
    storage: Storage,
    checked: Checked,
    trials: int,
    remarks: Sequence[str] = (),
    exists: bool = False,
    gpu_gb: float | None = None,
    price: float | None = None,
) -> StudyPlan:
    """A study's plan: memory, time and disk estimated from the models' shapes.

    Args:
        space: What is searched.
        storage: Where the study would be kept.
        checked: What the training process found of data, models and this machine.
        trials: The study's total number of configurations.
        remarks: Lines on the space.
        exists: Whether the study has begun.
        gpu_gb: Memory of the GPU to plan for; None or 0: this machine.
        price: Of an hour, in dollars; None: unknown.
    """
    data = DataFacts.from_json(checked.data)
    lines = [
        f"study {space.study}: {trials} configurations of up to {space.budget.max_steps} steps; {storage.display_name}",
        f"judged at {space.budget.judged}; strategy {space.budget.strategy}",
        *data_lines(space, data),
        f"searched: {', '.join(space.search)}{_size_remark(space, trials)}",
        *remarks,
    ]
    needs = {name: ModelNeeds.from_json(model) for name, model in checked.models.items()}
    card = card_to_plan_for(needs, gpu_gb)
    rate = checked.flops_per_second
    assert rate is not None  # measured for a plan
    if card is None:
        estimates = _cpu_estimates(space, needs, rate, trials)
    else:
        estimates = _gpu_estimates(space, data, needs, card, trials)
    is_gpu = card is not None
    checkpoint_bytes, step_seconds = estimates.checkpoint_bytes, estimates.step_seconds
    disk = disk_plan(space.budget, storage.folder, trials, checkpoint_bytes, step_seconds, is_gpu)
    lines += [_spend_line(space, trials), *estimates.lines, disk_line(disk, space.budget, trials)]
    cost = None
    if price is not None:
        cost = estimates.seconds / 3600 * price
        lines.append(cost_text(estimates.seconds, price))
    return StudyPlan(tuple(lines), full_trainings(space.budget, trials), estimates.seconds, cost, exists)


def data_lines(space: Space, data: DataFacts) -> list[str]:
    """What the data is, what was dropped of it, and what is minimised on it."""
    return [
        data_line(space.data["dataset"], data),
        *beside_lines(data),
        *(f"  dropped {row['name']}: {row['reason']}" for row in data.dropped[:10]),
        measure_line(space, data),
        *(f"  {remark}" for remark in data.remarks),
    ]


@dataclass(frozen=True)
class _Estimates:
    """What is said of memory and time.

    Attributes:
        lines: for a person.
        seconds: of the whole study, as expected, with the costliest model.
        step_seconds: of a step, at most.
        checkpoint_bytes: of a checkpoint, at most.
    """

    lines: list[str]
    seconds: float
    step_seconds: float
    checkpoint_bytes: int


def card_to_plan_for(needs: Mapping[str, ModelNeeds], gpu_gb: float | None) -> Card | None:
    """The GPU that is planned for: one with this memory, else the one that was measured; None: a CPU."""
    if gpu_gb:
        return card_of(gpu_gb)
    measured = next((model.card for model in needs.values()), None)
    return None if measured is None or gpu_gb == 0 else Card(**measured)


def _cpu_estimates(space: Space, needs: Mapping[str, ModelNeeds], rate: float, trials: int) -> _Estimates:
    """By this machine's matrix rate, in operations a second."""
    lines = []
    longest = 0.0
    for name, model in needs.items():
        seconds = model.flops_per_step / rate
        longest = max(longest, seconds)
        lines.append(f"{cpu_model_text(name, model)}, {seconds:.2f} s a step")
    full = longest * space.budget.max_steps
    most = full * trials
    expected = full * full_trainings(space.budget, trials)
    planned = f"{clock_time(expected)} as planned, " if space.budget.scheduler_config.is_planned else ""
    lines.append(
        f"estimate: {planned}at most {clock_time(most)} of training on this machine if "
        f"nothing were pruned (from {rate / 1e9:.0f} GFLOP/s measured just now; evaluation comes on top)"
    )
    largest = max(model.checkpoint_bytes for model in needs.values())
    return _Estimates(lines, expected, longest, largest)


def _gpu_estimates(
    space: Space, data: DataFacts, needs: Mapping[str, ModelNeeds], card: Card, trials: int
) -> _Estimates:
    """By what the card reaches, for the costliest model of the space."""
    lines = [card_line(card)]
    costs = []
    for name, model in needs.items():
        config = TrainConfig(**{**space.train, "model": name, "max_steps": space.budget.max_steps})
        clips = Clips(model.heard_seconds, LABEL_TOKENS, len(data.validation))
        cost = trial_cost(model, config, clips, card, len(space.budget.rungs))
        costs.append(cost)
        lines.append(f"{model_text(name, model)}; {trial_text(cost, config)}")
    longest = max(costs, key=lambda cost: cost.seconds)
    share = full_trainings(space.budget, trials)
    lines.append(
        f"estimate: about {clock_time(share * longest.seconds)} for {trials} trials, if the search trains as much as "
        f"{share:.1f} of them in full; at most {clock_time(trials * longest.seconds)} if nothing were pruned"
    )
    largest = max(cost.checkpoint_bytes for cost in costs)
    return _Estimates(lines, share * longest.seconds, longest.step_seconds, int(largest))


def card_line(card: Card) -> str:
    """The GPU that is planned for."""
    return f"predicted for {card.name}, {card.gigabytes:.0f} GB ({card.products:.0f} TFLOP/s, {card.memory:.2g} TB/s):"


def model_text(name: str, model: ModelNeeds) -> str:
    """A model and its size."""
    return f"model {short_value(name)}: {model.parameters / 1e6:.1f} M parameters"


def cpu_model_text(name: str, model: ModelNeeds) -> str:
    """A model and what it needs without a GPU."""
    return (
        f"{model_text(name, model)}; at least {file_size(model.memory_bytes)} to train, "
        f"{file_size(model.checkpoint_bytes, 2)} a checkpoint"
    )


def memory_text(cost: TrialCost, config: TrainConfig) -> str:
    """What one trial takes of a GPU's memory, in one clause."""
    fits = "" if cost.fits else ": MORE THAN IT HAS; see spaces/README.md for smaller settings"
    return f"{file_size(cost.memory_bytes)} with {cost.micro_batch} of {config.batch_size} clips at a time{fits}"


def cost_text(seconds: float, price: float) -> str:
    """What so long costs at a price an hour, as a plan says it."""
    return f"cost: {dollars(seconds, price)} at {price:g} dollars an hour"


def trial_text(cost: TrialCost, config: TrainConfig) -> str:
    """What one trial takes, in one clause."""
    return (
        f"{memory_text(cost, config)}; "
        f"{cost.step_seconds:.3f} s a step, {cost.evaluation_seconds:.0f} s an evaluation, "
        f"{clock_time(cost.seconds)} a trial; {file_size(cost.checkpoint_bytes)} a checkpoint"
    )


def full_trainings(budget: Budget, trials: int) -> float:
    """How many trainings in full take as many steps as a search of `trials` is expected to.

    They are those of its plan, and what it ends with past that, as the time left of a running study has them.
    Without a plan one in eta goes on past a rung, two in three past the last one before the end, as halving has it.
    """
    if budget.strategy == "none":
        return float(trials)
    if budget.scheduler_config.is_planned:
        from search.schedulers import planned  # numpy

        return planned.expected_trainings(budget.scheduler_config, trials)
    steps = 0
    before = 0
    count = trials
    for index, rung in enumerate(budget.rungs):
        steps += count * (rung - before)
        before = rung
        is_last_before_the_end = index == len(budget.rungs) - 2
        count = math.ceil(count * 2 / 3) if is_last_before_the_end else math.ceil(count / budget.eta)
    return steps / budget.max_steps
