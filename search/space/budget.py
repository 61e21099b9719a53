"""How long a configuration may train, and where it is judged on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from search.schedulers.asha import POLICIES
from search.schedulers.scheduler import SchedulerConfig
from search.space.errors import Location, shown
from search.space.knobs import Limits, check, check_keys

# search.samplers.sampler has them, and takes a second to import; the default first.
SAMPLERS = ("guided", "tpe", "quasi-random", "random")
_KNOBS = {
    "max_steps": Limits("max_steps", (int,), low=1, high=10_000_000),
    "rungs": Limits("rungs", (int,), low=1, high=10_000_000),
    "strategy": Limits("strategy", (str,), choices=tuple(POLICIES)),
    "eta": Limits("eta", (int,), low=2, high=100),
    "sampler": Limits("sampler", (str,), choices=SAMPLERS),
    "disk_gb": Limits("disk_gb", (float,), low=0.0, high=1e6, optional=True),
    "max_full": Limits("max_full", (int,), low=0, high=1000),
}
KEYS = tuple(_KNOBS)
_DURATION = re.compile(r"\d+(\.\d+)?\s*[smhd]", re.ASCII)
# What earlier versions had, and what to write instead.
_REMOVED = {"hyperband": "optuna-hyperband, bracket or halving", "median": "optuna-median or halving"}


@dataclass(frozen=True)
class Budget:
    """`rungs` rise and end at max_steps, in optimizer steps; one in `eta` goes on past each (see schedulers/asha.py).

    Beside the leader up to `max_full` that cannot be told from it are trained in full.
    Checkpoints of paused configurations take `disk_gb` at most; None: half of what the disk has to give.
    """

    max_steps: int
    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 4
    max_full: int = 3
    sampler: str = SAMPLERS[0]
    disk_gb: float | None = None

    @property
    def scheduler_config(self) -> SchedulerConfig:
        """The ladder's part."""
        return SchedulerConfig(self.rungs, self.strategy, self.eta, self.max_full)

    @property
    def judged(self) -> str:
        """Where a configuration is judged, for a person: `steps 20, 40, 80`."""
        return f"steps {', '.join(map(str, self.rungs))}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rungs": list(self.rungs)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], study: str) -> Budget:
        """The inverse of to_json; raises UserError for a study of an earlier version that this one cannot run."""
        place = Location(study, "budget")
        if raw.get("rung_seconds"):
            raise place.at("rungs").error(
                "this study's rungs are in seconds, and only optimizer steps are supported; "
                "start a new study with rungs in steps, or use the version of tmsearch that made it"
            )
        if raw["strategy"] in _REMOVED:
            raise place.at("strategy").error(
                f"{raw['strategy']} was removed; start a new study with {_REMOVED[raw['strategy']]}, "
                "or use the version of tmsearch that made it"
            )
        return cls(**{**raw, "rungs": tuple(raw["rungs"])})


def parse(raw: Mapping[str, Any], place: Location) -> Budget:
    """The file's `budget`; without rungs, three that each double, and the end."""
    check_keys(raw, KEYS, place)
    if "max_steps" not in raw:
        raise place.at("max_steps").error("missing; give the optimiser steps of a full training, such as 800")
    max_steps = check(_KNOBS["max_steps"], raw["max_steps"], place.at("max_steps"))
    strategy = raw.get("strategy")
    if isinstance(strategy, str) and strategy in _REMOVED:
        raise place.at("strategy").error(f"{strategy} was removed; write {_REMOVED[strategy]}")
    named = [key for key in KEYS if key not in ("max_steps", "rungs") and key in raw]
    given = {key: check(_KNOBS[key], raw[key], place.at(key)) for key in named}
    return Budget(max_steps, tuple(_rungs(raw.get("rungs"), max_steps, place)), **given)


def _rungs(raw: Any, max_steps: int, place: Location) -> list[int]:
    here = place.at("rungs")
    default = sorted({max(1, max_steps // 2**power) for power in range(4)})
    if raw is None:
        return default
    if not isinstance(raw, list):
        raise here.error(f"{shown(raw)} is not a list; give the steps to judge at, such as {default}")
    if not raw:
        raise here.error(f"an empty list; give at least [{max_steps}]")
    for number, item in enumerate(raw):
        if isinstance(item, str) and _DURATION.fullmatch(item.strip()):
            raise here.at(number).error(f"{shown(item)} is a time; give optimizer steps, such as {default}")
    return _steps(raw, max_steps, place)


def _steps(raw: list[Any], max_steps: int, place: Location) -> list[int]:
    here = place.at("rungs")
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
