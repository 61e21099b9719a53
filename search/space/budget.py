"""The budget section: how long a trial may train, and where it is judged on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from search.records import measure_name
from search.schedulers.asha import POLICIES
from search.schedulers.scheduler import AUTO, SchedulerConfig, Spend
from search.space.errors import Location, shown
from search.space.knobs import Knob, check, check_keys

# search.samplers.sampler has them, and takes a second to import; the default first.
SAMPLERS = ("guided", "tpe", "quasi-random", "random")
# What a search may minimise, by the name that the application measures it under; the default first.
OBJECTIVES = ("wer", "cer", "wer_long", "mean")
_KNOBS = {
    "max_steps": Knob("max_steps", (int,), low=1, high=10_000_000),
    "rungs": Knob("rungs", (int,), low=1, high=10_000_000),
    "strategy": Knob("strategy", (str,), choices=tuple(POLICIES)),
    "eta": Knob("eta", (int,), low=2, high=100),
    "sampler": Knob("sampler", (str,), choices=SAMPLERS),
    "disk_gb": Knob("disk_gb", (float,), low=0.0, high=1e6, optional=True),
    "max_full": Knob("max_full", (int,), low=0, high=1000),
    "objective": Knob("objective", (str,), choices=OBJECTIVES),
    "spend": Knob("spend", (float,), low=0.0, high=1.0),
    "earlier": Knob("earlier", (bool,)),
}
KEYS = tuple(_KNOBS)
_DURATION = re.compile(r"\d+(\.\d+)?\s*[smhd]", re.ASCII)
# What earlier versions had, and what to write instead.
_REMOVED = {"hyperband": "optuna-hyperband, bracket or halving", "median": "optuna-median or halving"}


@dataclass(frozen=True)
class Budget:
    """How much a study may train, checked.

    Attributes:
        max_steps: optimizer steps of a full training.
        rungs: optimizer steps at which trials are judged; they rise and end at max_steps.
        strategy: a name of schedulers.asha.POLICIES.
        eta: one in so many trials goes on past a rung.
        max_full: so many trials that cannot be told from the leader are trained in full beside it.
        sampler: one of SAMPLERS.
        objective: one of OBJECTIVES, which is what trials report and what is minimised.
        disk_gb: what checkpoints of paused trials may take; None: half of the disk's free space.
        spend: what halving may spend, as a share of training every trial in full; auto: less the more trials there
            are. None: what `eta` and `max_full` make of it, as in studies of before 0.2.0.
        earlier: whether a new study is told what earlier ones in its storage know of its knobs.
    """

    max_steps: int
    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 4
    max_full: int = 3
    sampler: str = SAMPLERS[0]
    disk_gb: float | None = None
    objective: str = OBJECTIVES[0]
    spend: Spend | None = None
    earlier: bool = True

    @property
    def learns_from_earlier(self) -> bool:
        """Whether its draws use what earlier studies know: the guided sampler alone does."""
        return self.earlier and self.sampler == SAMPLERS[0]

    @property
    def scheduler_config(self) -> SchedulerConfig:
        """The scheduler's part."""
        return SchedulerConfig(self.rungs, self.strategy, self.eta, self.max_full, self.spend)

    @property
    def measure(self) -> str:
        """The objective for a person."""
        return measure_name(self.objective)

    @property
    def judged(self) -> str:
        """Where trials are judged, for a person: `steps 20, 40, 80`."""
        return f"steps {', '.join(map(str, self.rungs))}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which from_json makes an equal Budget."""
        plain = {**asdict(self), "rungs": list(self.rungs)}
        if self.objective == OBJECTIVES[0]:
            del plain["objective"]  # studies of before 0.2.0 have none, and keep their fingerprint
        if self.spend is None:
            del plain["spend"]  # likewise
        if self.earlier:
            del plain["earlier"]  # likewise
        return plain

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], study: str) -> Budget:
        """The inverse of to_json; raises UserError for a study of an earlier version that this one cannot run."""
        location = Location(study, "budget")
        if raw.get("rung_seconds"):
            raise location.at("rungs").error(
                "this study's rungs are in seconds, and only optimizer steps are supported; "
                "start a new study with rungs in steps, or use the version of tmsearch that made it"
            )
        if raw["strategy"] in _REMOVED:
            raise location.at("strategy").error(
                f"{raw['strategy']} was removed; start a new study with {_REMOVED[raw['strategy']]}, "
                "or use the version of tmsearch that made it"
            )
        return cls(**{**raw, "rungs": tuple(raw["rungs"])})


def parse(raw: Mapping[str, Any], location: Location) -> Budget:
    """The file's `budget`; the default rungs are an eighth, a quarter and a half of max_steps, and max_steps."""
    check_keys(raw, KEYS, location)
    if "max_steps" not in raw:
        raise location.at("max_steps").error("missing; give the optimizer steps of a full training, such as 800")
    max_steps = check(_KNOBS["max_steps"], raw["max_steps"], location.at("max_steps"))
    strategy = raw.get("strategy")
    if isinstance(strategy, str) and strategy in _REMOVED:
        raise location.at("strategy").error(f"{strategy} was removed; write {_REMOVED[strategy]}")
    given = {}
    for key in KEYS[2:]:
        if key in raw and key != "spend":
            given[key] = check(_KNOBS[key], raw[key], location.at(key))
    given["spend"] = _spend(given, raw, location)
    sampler = given.get("sampler", SAMPLERS[0])
    if given.get("earlier") and sampler != SAMPLERS[0]:
        raise location.blame("sampler", "earlier").error(
            f"budget.earlier is for the sampler {SAMPLERS[0]}, and the sampler is {sampler}; leave one of them out"
        )
    return Budget(max_steps, tuple(_rungs(raw.get("rungs"), max_steps, location)), **given)


def _spend(given: Mapping[str, Any], raw: Mapping[str, Any], location: Location) -> Spend | None:
    """The file's `spend`; without one, a plan unless the file says by other keys how much goes on past a rung."""
    strategy = given.get("strategy", Budget.strategy)
    others = [key for key in ("eta", "max_full") if key in given]
    if "spend" not in raw:
        return AUTO if strategy == Budget.strategy and not others else None
    if strategy != Budget.strategy:
        raise location.blame("strategy", "spend").error(
            f"budget.spend plans what halving spends, and the strategy is {strategy}; leave one of them out"
        )
    if others:
        raise location.blame(others[0], "spend").error(
            f"budget.spend and budget.{others[0]} both say how much goes on past a rung; leave one of them out"
        )
    return _share(raw["spend"], location.at("spend"))


def _share(raw: Any, location: Location) -> Spend:
    if raw == AUTO:
        return AUTO
    if isinstance(raw, str):
        try:
            float(raw)
        except ValueError:
            raise location.error(f"{shown(raw)} is not a number; give a share of 1, or auto") from None
    return float(check(_KNOBS["spend"], raw, location))


def _rungs(raw: Any, max_steps: int, location: Location) -> list[int]:
    here = location.at("rungs")
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
    return _steps(raw, max_steps, location)


def _steps(raw: list[Any], max_steps: int, location: Location) -> list[int]:
    here = location.at("rungs")
    rungs = [check(_KNOBS["rungs"], item, here.at(number)) for number, item in enumerate(raw)]
    for number, (lower, rung) in enumerate(pairwise(rungs), start=1):
        if rung <= lower:
            raise here.at(number).error(f"{rung} does not rise above {lower}; list each rung once, from low to high")
    if rungs[-1] != max_steps:
        problem = "is past" if rungs[-1] > max_steps else "is not"
        fix = shown([*(rung for rung in rungs if rung < max_steps), max_steps])
        raise location.blame("max_steps", "rungs").error(
            f"the last of budget.rungs, {rungs[-1]}, {problem} budget.max_steps, {max_steps}; make rungs {fix}"
        )
    return rungs
