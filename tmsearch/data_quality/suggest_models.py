"""Which models a first space file trains, what lets them fit the GPU, and what a trial takes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.formatting import clock_time
from tmsearch.model.context import context_rule
from tmsearch.model.cost import LABEL_TOKENS, Clips, TrialCost, card_of, trial_cost
from tmsearch.model_sizes import BASIC_SIZES, dimensions

CONTEXTS = (1.0, 30.0)  # seconds: the least that the knob takes, and the context of every released Whisper
# What lets a larger model fit, the least costly first.
SAVINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"low_memory": True},
    {"low_memory": True, "gradient_checkpointing": True},
)
EVALUATIONS = 4  # of a trial that is trained in full
# openai/whisper's README: English-only models tend to do better, above all these two.
BETTER_IN_ENGLISH = ("tiny", "base")


@dataclass(frozen=True)
class ProposedSetting:
    """One key of the file, its value and the reason for it; `assumption` is printed by `tmsearch init`."""

    key: str
    value: Any
    why: str = ""
    assumption: str = ""

    @property
    def is_searched(self) -> bool:
        """Whether a knob's value is a list or a range to choose from."""
        return isinstance(self.value, list | dict)


@dataclass(frozen=True)
class TrialPlan:
    """What trials would train on, how long, and on which GPU: 0 GB for none."""

    corpus: Corpus
    split: Split
    batch: int
    steps: int
    gpu_gb: float

    def cost(self, model: str, knobs: Mapping[str, Any]) -> TrialCost | None:
        """Of a trial trained in full on that GPU; None without one, or for a model of unknown size."""
        shape = dimensions(model)
        if shape is None or not self.gpu_gb:
            return None
        config = TrainConfig(model=model, batch_size=self.batch, max_steps=self.steps, **knobs)
        seconds = [clip.seconds for clip in self.corpus.clips]
        rule = context_rule(config, CONTEXTS[1], min(CONTEXTS[1], max(seconds)))
        clips = Clips(rule.mean_seconds(seconds), LABEL_TOKENS, len(self.split.validation))
        return trial_cost(shape, config, clips, card_of(self.gpu_gb), EVALUATIONS)

    def saving(self, model: str) -> Mapping[str, Any] | None:
        """The first of SAVINGS with which the model fits; None where none is enough, or nothing is known."""
        for knobs in SAVINGS:
            cost = self.cost(model, knobs)
            if cost is not None and cost.fits:
                return knobs
        return None

    def longest(self, names: Sequence[str]) -> float | None:
        """Seconds of a trial of the costliest model, with what lets it fit; None where nothing is known."""
        costs = [self.cost(name, self.saving(name) or {}) for name in names]
        return max((cost.seconds for cost in costs if cost is not None), default=None)


def savings(names: Sequence[str], plan: TrialPlan) -> list[ProposedSetting]:
    """Knobs that make the largest of these models fit the GPU, none where it fits as it is; and what a trial takes."""
    costs = {}
    for name in names:
        cost = plan.cost(name, {})
        if cost is not None:
            costs[name] = cost
    if not costs:
        return []
    largest = max(costs, key=lambda name: costs[name].memory_bytes)
    knobs = plan.saving(largest)
    cost = plan.cost(largest, SAVINGS[-1] if knobs is None else knobs)
    assert cost is not None
    if knobs is not None:
        return [_saving(largest, knob, value, cost, plan) for knob, value in knobs.items()]
    least = f"{largest} takes {cost.memory_bytes / 1e9:.0f} GB at least, predicted; {plan.gpu_gb:g} GB are too few"
    return [ProposedSetting(knob, True, f"{least}.", f"{knob}: {least}") for knob in SAVINGS[-1]]


def _saving(model: str, knob: str, value: Any, cost: TrialCost, plan: TrialPlan) -> ProposedSetting:
    needed = f"{model} takes {cost.memory_bytes / 1e9:.0f} GB with it, predicted"
    why = f"{needed}; without, more than {plan.gpu_gb:g} GB leave"
    return ProposedSetting(knob, value, sentence(why), f"{knob}: {why}")


def models(config: DataConfig, plan: TrialPlan, gpu_why: str) -> tuple[list[str], str]:
    """Two sizes for the search to choose from, and why these."""
    if config.dataset == "demo":
        return ["demo/nano", "demo/micro"], "embedded, so that the demo needs no network"
    if not plan.gpu_gb:
        names = [_hub_name(size, config) for size in ("tiny", "base")]
        return names, f"{gpu_why}; larger ones take hours on a CPU"
    costs = {size.name: plan.cost(_hub_name(size.name, config), {}) for size in BASIC_SIZES}
    fitting = {name: cost for name, cost in costs.items() if cost is not None and cost.fits}
    names = list(fitting) or ["tiny"]
    largest = names[-1]
    sizes = ["small", largest] if largest in ("medium", "large-v3") else names[-2:]
    why = gpu_why
    if fitting:
        cost = fitting[largest]
        why += (
            f"; full training of {largest} takes about {cost.memory_bytes / 1e9:.0f} GB and "
            f"{clock_time(cost.seconds)} a trial, predicted for {card_of(plan.gpu_gb).name}"
        )
    return [_hub_name(size, config) for size in sizes], why


def _hub_name(size: str, config: DataConfig) -> str:
    name = f"openai/whisper-{size}"
    return f"{name}.en" if config.language == "en" and size in BETTER_IN_ENGLISH else name


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
