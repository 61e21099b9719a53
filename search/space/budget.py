"""How long a configuration may train, and where it is judged on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from search.schedulers.asha import BY_TIME, STRATEGIES
from search.schedulers.scheduler import Rule
from search.schedulers.time_rungs import PROBE, Pace
from search.space.errors import Place, shown
from search.space.knobs import Limits, check, check_keys

# search.samplers.sampler has them, and takes a second to import; the default first.
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
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 366 * _UNITS["d"]


@dataclass(frozen=True)
class Budget:
    """`rungs` rise and end at max_steps, in optimiser steps; one in `eta` goes on past each (see schedulers/asha.py).

    `rung_seconds`: rungs at so many seconds of a configuration's own training instead; `rungs` is then max_steps alone.
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
    rung_seconds: tuple[float, ...] = ()

    @property
    def rule(self) -> Rule:
        """The ladder's part."""
        probe = max(1, math.ceil(PROBE * self.max_steps))
        pace = Pace(self.rung_seconds, self.max_steps, probe) if self.rung_seconds else None
        return Rule(self.rungs, self.strategy, self.eta, self.max_full, pace)

    @property
    def judged(self) -> str:
        """Where a configuration is judged, for a person: `steps 20, 40, 80`, or `30s, 2m of training, step 80`."""
        if self.rung_seconds:
            return f"{', '.join(map(_text, self.rung_seconds))} of training, step {self.max_steps}"
        return f"steps {', '.join(map(str, self.rungs))}"

    @property
    def names(self) -> tuple[str, ...]:
        """The rungs as a table names them, the end too: `20`, `40`, `80`, or `30s`, `2m`, `80`."""
        return (*map(_text, self.rung_seconds), *map(str, self.rungs))

    def to_json(self) -> dict[str, Any]:
        """Plain values; without rungs in seconds as it was before there were any, for the fingerprint's sake."""
        plain = {**asdict(self), "rungs": list(self.rungs), "rung_seconds": list(self.rung_seconds)}
        return {key: value for key, value in plain.items() if key != "rung_seconds" or value}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Budget:
        return cls(**{**raw, "rungs": tuple(raw["rungs"]), "rung_seconds": tuple(raw.get("rung_seconds", ()))})


def parse(raw: Mapping[str, Any], place: Place) -> Budget:
    """The file's `budget`; without rungs, three that each double, and the end."""
    check_keys(raw, KEYS, place)
    if "max_steps" not in raw:
        raise place.at("max_steps").error("missing; give the optimiser steps of a full training, such as 800")
    max_steps = check(_KNOBS["max_steps"], raw["max_steps"], place.at("max_steps"))
    named = [key for key in KEYS if key not in ("max_steps", "rungs") and key in raw]
    given = {key: check(_KNOBS[key], raw[key], place.at(key)) for key in named}
    rungs, seconds = _rungs(raw.get("rungs"), max_steps, place)
    budget = Budget(max_steps, tuple(rungs), **given, rung_seconds=tuple(seconds))
    if seconds and budget.strategy not in BY_TIME:
        raise place.at("strategy").error(
            f"{budget.strategy} counts steps, and budget.rungs are in seconds; give rungs in steps, or one of "
            f"{', '.join(BY_TIME)}"
        )
    return budget


def _rungs(raw: Any, max_steps: int, place: Place) -> tuple[list[int], list[float]]:
    """The rungs in steps, and those in seconds; where there are any, the steps are only the end."""
    here = place.at("rungs")
    if raw is None:
        return sorted({max(1, max_steps // 2**power) for power in range(4)}), []
    if not isinstance(raw, list):
        raise here.error(f"{shown(raw)} is no list; give the steps to judge at, such as [{max_steps}]")
    if not raw:
        raise here.error(f"an empty list; give at least [{max_steps}]")
    durations = [item for item in raw if isinstance(item, str) and _DURATION.fullmatch(item.strip())]
    if len(durations) == len(raw):
        return [max_steps], _seconds(durations, here)
    if durations:
        other = next(item for item in raw if item not in durations)
        raise here.error(
            f"{shown(durations[0])} is a duration and {shown(other)} is not; give all in steps, or all as durations of "
            "training, such as [30s, 2m], without the end, which is budget.max_steps"
        )
    return _steps(raw, max_steps, place), []


def _seconds(raw: list[str], here: Place) -> list[float]:
    found: list[float] = []
    for number, item in enumerate(raw):
        match = _DURATION.fullmatch(item.strip())
        assert match is not None
        seconds = float(match[1]) * _UNITS[match[2]]
        if not 0.0 < seconds <= _LONGEST:
            raise here.at(number).error(f"{shown(item)} is no time to judge at; give one from 1s to 366d")
        if found and seconds <= found[-1]:
            raise here.at(number).error(
                f"{shown(item)} does not rise above {shown(raw[number - 1])}; list each rung once, from short to long"
            )
        found.append(seconds)
    return found


def _text(seconds: float) -> str:
    name = next((name for name in ("d", "h", "m") if not seconds % _UNITS[name]), "s")
    return f"{seconds / _UNITS[name]:g}{name}"


def _steps(raw: list[Any], max_steps: int, place: Place) -> list[int]:
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
