"""The README's table `which space for which GPU`, from the model of cost: print it, put it in, or check it.

    python tests/bench/gpu_table.py            # print it
    python tests/bench/gpu_table.py --write    # put it into README.md

Needs no GPU. Its figures are as good as tmsearch/model/cost.py's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from search.schedulers.scheduler import AUTO
from search.space.budget import Budget
from tmsearch.cli.services.plan import full_trainings
from tmsearch.config import NEW_STUDIES, TrainConfig
from tmsearch.formatting import clock_time
from tmsearch.model import cost
from tmsearch.model.context import context_rule
from tmsearch.model.cost import Clips, TrialCost
from tmsearch.model_sizes import dimensions
from tmsearch.trial.check import mean_example

SPACES = ("tiny", "base", "small", "medium", "distil", "turbo", "large_v3")
CARDS = (16, 24, 40, 80)  # GB
CLIP_SECONDS = 10.0
VALIDATION = 124  # clips, as the seed has
TRIALS = 20
SAVINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"low_memory": True},
    {"low_memory": True, "gradient_checkpointing": True},
)
BEGIN = "<!-- gpus: tests/bench/gpu_table.py --write -->\n"
END = "<!-- end of gpus -->\n"


def trial(model: str, train: Mapping[str, Any], gigabytes: float, evaluations: int, steps: int) -> TrialCost:
    """A trial of a published model on clips of CLIP_SECONDS, half of what it hears being windows of several."""
    shape = dimensions(model)
    assert shape is not None
    config = TrainConfig(**{**NEW_STUDIES, **train, "model": model, "max_steps": steps})
    rule = context_rule(config, 30.0, CLIP_SECONDS)
    seconds, tokens = mean_example(config, 30.0, rule, [CLIP_SECONDS])
    clips = Clips(seconds, tokens, VALIDATION)
    return cost.trial_cost(shape, config, clips, cost.card_of(gigabytes), evaluations)


def cell(space: Mapping[str, Any], gigabytes: float) -> str:
    """Memory, a trial and TRIALS of them on one card, with the first saving that lets the largest model fit."""
    models = space["search"].get("model", [space["train"].get("model")])
    budget = Budget(space["budget"]["max_steps"], tuple(space["budget"]["rungs"]), spend=AUTO)
    for knobs in SAVINGS:
        train = {**space["train"], **knobs}
        costs = [trial(model, train, gigabytes, len(budget.rungs), budget.max_steps) for model in models]
        longest = max(costs, key=lambda cost: cost.seconds)
        if all(cost.fits for cost in costs):
            seconds = full_trainings(budget, TRIALS) * longest.seconds
            names = f"{', '.join(knobs)}: " if knobs else ""
            at_once = (
                "" if longest.micro_batch >= space["train"]["batch_size"] else f", {longest.micro_batch} at a time"
            )
            memory = max(cost.memory_bytes for cost in costs) / cost.GIGA
            return f"{names}{memory:.0f} GB{at_once}; {clock_time(longest.seconds)}; {clock_time(seconds)}"
    return "does not fit"


def table() -> Iterator[str]:
    """The lines of the table, in Markdown."""
    heads = [f"{size} GB, as {cost.card_of(size).name.removesuffix(f' of {size} GB')}" for size in CARDS]
    yield f"| space | {' | '.join(heads)} |\n"
    yield f"|---{'|---' * len(CARDS)}|\n"
    for name in SPACES:
        space = yaml.safe_load((ROOT / f"spaces/{name}.yaml").read_text(encoding="utf-8"))
        cells = [cell(space, size) for size in CARDS]
        yield f"| [{name}](spaces/{name}.yaml) | {' | '.join(cells)} |\n"


def main() -> None:
    text = "".join(table())
    if "--write" not in sys.argv[1:]:
        print(text, end="")
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + text + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
