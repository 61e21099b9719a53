"""How long a configuration may train, and where it is judged on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from search.knobs import Limits, check, check_keys
from search.places import Place, shown
from search.strategies import STRATEGIES

# search.sampling has them, and takes a second to import; the default first.
SAMPLERS = ("guided", "tpe", "quasi-random", "random")
_KNOBS = {
    "max_steps": Limits("max_steps", (int,), low=1, high=10_000_000),
    "rungs": Limits("rungs", (int,), low=1, high=10_000_000),
    "strategy": Limits("strategy", (str,), choices=tuple(STRATEGIES)),
    "eta": Limits("eta", (int,), low=2, high=100),
    "sampler": Limits("sampler", (str,), choices=SAMPLERS),
    "disk_gb": Limits("disk_gb", (float,), low=0.0, high=1e6, optional=True),
    "max_full": Limits("max_full", (int,), low=0, high=1000),
}
KEYS = tuple(_KNOBS)


@dataclass(frozen=True)
class Budget:
    """`rungs` rise and end at max_steps, in optimiser steps; one in `eta` goes on past each.

    Beside the leader up to `max_full` that cannot be told from it are trained in full.
    Checkpoints of paused configurations take `disk_gb` at most; None: half of what the disk has to give.
    """

    max_steps: int
    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 3
    max_full: int = 3
    sampler: str = SAMPLERS[0]
    disk_gb: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rungs": list(self.rungs)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Budget:
        return cls(**{**raw, "rungs": tuple(raw["rungs"])})


def parse(raw: Mapping[str, Any], place: Place) -> Budget:
    """The file's `budget`; without rungs, three that each double, and the end."""
    check_keys(raw, KEYS, place)
    if "max_steps" not in raw:
        raise place.at("max_steps").error("missing; give the optimiser steps of a full training, such as 800")
    max_steps = check(_KNOBS["max_steps"], raw["max_steps"], place.at("max_steps"))
    named = [key for key in KEYS if key not in ("max_steps", "rungs") and key in raw]
    given = {key: check(_KNOBS[key], raw[key], place.at(key)) for key in named}
    if raw.get("rungs") is None:
        rungs = sorted({max(1, max_steps // 2**power) for power in range(4)})
    else:
        rungs = _rungs(raw["rungs"], max_steps, place)
    return Budget(max_steps, tuple(rungs), **given)


def _rungs(raw: Any, max_steps: int, place: Place) -> list[int]:
    here = place.at("rungs")
    if not isinstance(raw, list):
        raise here.error(f"{shown(raw)} is no list; give the steps to judge at, such as [{max_steps}]")
    if not raw:
        raise here.error(f"an empty list; give at least [{max_steps}]")
    rungs = [check(_KNOBS["rungs"], item, here.at(number)) for number, item in enumerate(raw)]
    for number, (one, other) in enumerate(pairwise(rungs), start=1):
        if other <= one:
            raise here.at(number).error(f"{other} does not rise above {one}; list each rung once, from low to high")
    if rungs[-1] != max_steps:
        problem = "is past" if rungs[-1] > max_steps else "is not"
        fix = shown([*(rung for rung in rungs if rung < max_steps), max_steps])
        raise place.blame("max_steps", "rungs").error(
            f"the last of budget.rungs, {rungs[-1]}, {problem} budget.max_steps, {max_steps}; make rungs {fix}"
        )
    return rungs
