"""What a confirmation takes, before it starts and in `confirm --dry-run`: trainings, time, memory, disk, dollars."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.schedulers import race_reference, racing
from search.schedulers.racing import Arm
from search.space.search_space import Choice, Space
from search.study import Summary
from tmsearch.cli.services.confirmation import PlannedConfirmation, planned_rounds, recipe_params
from tmsearch.cli.services.plan import card_line, cpu_model_text, memory_text, model_text
from tmsearch.cli.view.format import dollars, searched_knobs
from tmsearch.config import TrainConfig
from tmsearch.formatting import clock_time, file_size
from tmsearch.model.cost import (
    BF16_BYTES,
    FLOAT_BYTES,
    LABEL_TOKENS,
    Card,
    Clips,
    TrialCost,
    checkpoint_bytes,
    trained_parameters,
    trial_cost,
)
from tmsearch.trial.facts import ArmPlan, ModelNeeds, StudyFacts


@dataclass(frozen=True)
class ArmCost:
    """What one training of a recipe takes: seconds, and bytes of the weights that are kept of it."""

    seconds: float
    kept_bytes: float = 0.0


@dataclass(frozen=True)
class RaceEstimate:
    """A race from its start to its end, if no look ends it before.

    Attributes:
        done: trainings that have a result.
        running: trainings that a worker is at.
        left: trainings that are still to come at most, the running ones among them.
        spent: seconds that those took which are done.
        seconds_left: of those to come.
        kept_bytes: of the weights that are kept of those to come.
    """

    done: int
    running: int
    left: int
    spent: float
    seconds_left: float
    kept_bytes: float

    @property
    def trainings(self) -> int:
        """At most, in all."""
        return self.done + self.left

    @property
    def seconds(self) -> float:
        """At most, in all."""
        return self.spent + self.seconds_left

    def line(self, speed: str = "", price: float | None = None) -> str:
        """For a person; `speed`: how the time is known."""
        if not self.left:
            took = f"{clock_time(self.spent)}{_money(self.spent, price)}"
            return f"{self.done} trainings are done, in {took}; the answer is known"
        there = f", of which {_count(self.done, 'is', 'are')} done and {clock_time(self.spent)} is spent"
        if self.running:
            there += f", and {_count(self.running, 'is', 'are')} running"
        return (
            f"at most {self.trainings} trainings, about {clock_time(self.seconds)}{speed}{_money(self.seconds, price)}"
            f"{there if self.done or self.running else ''}; it ends once the answer is known"
        )


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"


def _money(seconds: float, price: float | None) -> str:
    return "" if price is None else f", {dollars(seconds, price)} at {price:g} an hour"


def head_lines(planned: PlannedConfirmation) -> list[str]:
    """Which recipes are trained, how often, with which seeds, on what."""
    plan = planned.plan
    names = [arm.name for arm in plan.arms]
    rounds = planned_rounds(plan, planned.strategy)
    first_seed = planned.base_seed + 1
    split = f"{plan.folds} fold{'' if plan.folds == 1 else 's'}" if plan.folds else "the study's own split"
    drops = racing.drops_losers(planned.strategy) and len(names) > 2
    leaving = ", and after each round the worse half of the leaders leaves" if drops else ""
    return [
        f"confirm {plan.of}: {names[0]} recipe against {', '.join(names[1:])}; up to {rounds} trainings each, "
        f"seeds {first_seed} to {first_seed + rounds - 1}, on {split}{leaving}",
        *(f"  {arm.name}: {searched_knobs(planned.parent.record.space, arm.params)}" for arm in plan.arms),
    ]


def race_estimate(planned: PlannedConfirmation, costs: Sequence[ArmCost]) -> RaceEstimate:
    """What the race takes at most; `costs`: of a training, by recipe, the default one first."""
    state = racing.race_state(planned.history, racing.drops_losers(planned.strategy))
    left = _most_left(planned, state, costs)
    trained = [training for training in planned.history if training.rungs]
    return RaceEstimate(
        done=len(trained),
        running=sum(training.state == "running" for training in planned.history),
        left=sum(left),
        spent=sum(training.seconds for training in planned.history),
        seconds_left=sum(count * cost.seconds for count, cost in zip(left, costs, strict=True)),
        kept_bytes=sum(count * cost.kept_bytes for count, cost in zip(left, costs, strict=True)),
    )


def _most_left(planned: PlannedConfirmation, state: racing.RaceState, costs: Sequence[ArmCost]) -> list[int]:
    """Trainings still to come of each recipe, if no look ends the race; of the leaders the slow ones may stay."""
    if state.over:
        return [0] * len(state.arms)
    due = {training.number for training in state.due}
    left = [len(due.intersection(arm.numbers)) for arm in state.arms]
    left[0] += _later_rounds(state.arms[0], state.rounds)
    leaders = [index for index, arm in enumerate(state.arms) if index and arm.fate == "in the race"]
    leaders.sort(key=lambda index: -costs[index].seconds)
    rounds = planned_rounds(planned.plan, planned.strategy)
    counts = [len(leaders)] * rounds
    if racing.drops_losers(planned.strategy):
        counts = race_reference.contenders_by_round(len(state.arms) - 1, rounds)
    for count in counts[state.rounds + 1 :]:
        for index in leaders[:count]:
            left[index] += 1
    return left


def _later_rounds(arm: Arm, rounds: int) -> int:
    """Rounds that a recipe trains in after the one that follows `rounds`."""
    return max(0, len(arm.replicates) - rounds - 1)


def measured_costs(planned: PlannedConfirmation) -> list[ArmCost]:
    """Each recipe's seconds as measured: in the search and the confirmation, else those of the slowest trial."""
    return [ArmCost(_measured_seconds(planned, arm)) for arm in planned.plan.arms]


def _measured_seconds(planned: PlannedConfirmation, arm: ArmPlan) -> float:
    max_steps = planned.parent.record.space["budget"]["max_steps"]
    history = (*planned.parent.history, *planned.history)
    trials = [trial for trial in history if trial.steps and recipe_params(trial.params or {}) == arm.params]
    if not trials:
        trials = [trial for trial in planned.parent.history if trial.steps]
    return max((trial.seconds_a_step * max_steps for trial in trials), default=0.0)


def measured_speed(planned: PlannedConfirmation) -> str:
    """How the seconds of `measured_costs` are known."""
    history = (*planned.parent.history, *planned.history)
    trained = [recipe_params(trial.params or {}) for trial in history if trial.steps]
    others = [arm.name for arm in planned.plan.arms if arm.params not in trained]
    guessed = f" ({', '.join(others)}: of its slowest trial)" if others else ""
    return f" at the speed of the search{guessed}"


def model_space(planned: PlannedConfirmation) -> Space:
    """The search's space with the models that the confirmation trains."""
    space = Space.from_json(dict(planned.parent.record.space))
    if "model" not in space.search:
        return space
    names = tuple(dict.fromkeys(_model(arm) for arm in planned.plan.arms))
    return dataclasses.replace(space, search={**space.search, "model": Choice(names)})


def _model(arm: ArmPlan) -> str:
    return str(arm.params.get("model", TrainConfig.model))


@dataclass(frozen=True)
class MachineNeeds:
    """What the confirmation needs of a machine.

    Attributes:
        lines: for a person.
        costs: of a training, by recipe.
        checkpoint_bytes: of a checkpoint, at most.
    """

    lines: tuple[str, ...]
    costs: tuple[ArmCost, ...]
    checkpoint_bytes: float


def machine_needs(
    planned: PlannedConfirmation, needs: Mapping[str, ModelNeeds], card: Card | None, *, is_predicted: bool
) -> MachineNeeds:
    """Memory of each model, seconds and disk of each recipe.

    Args:
        planned: the confirmation.
        needs: of each model that it trains.
        card: the GPU that is planned for; None: a CPU.
        is_predicted: whether the seconds are the card's by prediction; else they are as measured.
    """
    configs = [_config(planned.parent, arm) for arm in planned.plan.arms]
    measured = measured_costs(planned)
    clips = len(StudyFacts.from_json(planned.parent.facts).known_data.validation)
    predicted: dict[int, TrialCost] = {}
    costs = []
    for index, config in enumerate(configs):
        model = needs[config.model]
        seconds = measured[index].seconds
        if card is not None:
            predicted[index] = trial_cost(model, config, Clips(model.heard_seconds, LABEL_TOKENS, clips), card, 1)
            seconds = predicted[index].seconds if is_predicted else seconds
        costs.append(ArmCost(seconds, _kept_bytes(model, config)))
    lines = [] if card is None else [card_line(card)]
    for name, model in needs.items():
        of_model = [index for index, config in enumerate(configs) if config.model == name]
        if card is None:
            lines.append(cpu_model_text(name, model))
            continue
        largest = max(of_model, key=lambda index: predicted[index].memory_bytes)
        text = memory_text(predicted[largest], configs[largest])
        lines.append(
            f"{model_text(name, model)}; {text}; {file_size(predicted[largest].checkpoint_bytes)} a checkpoint"
        )
    checkpoint = max(checkpoint_bytes(needs[config.model], config) for config in configs)
    return MachineNeeds(tuple(lines), tuple(costs), checkpoint)


def _config(parent: Summary, arm: ArmPlan) -> TrainConfig:
    return TrainConfig(**{**arm.params, "max_steps": parent.record.space["budget"]["max_steps"]})


def _kept_bytes(model: ModelNeeds, config: TrainConfig) -> float:
    """Of the trained weights that are kept for a test or a merge, as they are scored: an average is float32."""
    number = BF16_BYTES if config.low_memory and not config.average_share else FLOAT_BYTES
    return float(trained_parameters(model, config) * number)


def disk_line(planned: PlannedConfirmation, estimate: RaceEstimate, needs: MachineNeeds, folder: Path) -> str:
    """What the confirmation still takes of the disk that `folder` is on, or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    largest = max(cost.kept_bytes for cost in needs.costs)
    line = (
        f"disk: {file_size(largest, 2)} of weights a training, kept until `tmsearch delete {planned.name}`; at most "
        f"{file_size(estimate.kept_bytes)} for {estimate.left} trainings, and one checkpoint of "
        f"{file_size(needs.checkpoint_bytes, 2)} while a worker trains"
    )
    if free < estimate.kept_bytes + 2 * needs.checkpoint_bytes:  # the one being written, and the one before
        line += f": MORE THAN THE {file_size(free)} THAT ARE FREE"
    return line
