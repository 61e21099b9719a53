"""Tables of recorded learning curves: JSON lines, a header and one configuration a line.

The header tells what was searched and at which rungs the curves were recorded:

    {"study": "demo", "rungs": [10, 20, 40, 80], "search": {"learning_rate": {"kind": "float", "low": 1e-05, ...}}}

`search` holds ranges as Space.to_json writes them; `default`, which may be left out, is the default recipe's
configuration, one of those below. So may what studies on other tables compare by: `parameters` of the model (of several
their geometric mean), `seconds` of its training clips, and `centers`, as samplers/earlier.py has them, by knob what its
values are divided by: {"learning_rate": {"divisors": {"[]": 3.75e-05}, "depends": [], "is_factor": true}}. Then one
line a configuration:

    {"configuration": {"learning_rate": 0.0003}, "seed": 0, "rungs": [
        {"step": 10, "value": 0.91, "seconds": 2.1, "errors": [0, 3, 1]}, ...]}

`value` is minimized; `seconds` is what the segment that ends at `step` cost, training and evaluation; `errors`, by clip
in one order for the whole table, may be left out. A curve ends early if its training failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.records import Configuration, Rung, default_configuration
from search.samplers.earlier import Center
from search.space import distributions
from search.space.distributions import Range
from search.space.search_space import Space
from search.storage.ledger import Ledger


@dataclass(frozen=True)
class Curve:
    """One configuration trained as far as it got; each rung's metrics hold `train_seconds` and perhaps `errors`."""

    drawn: Mapping[str, Any]
    seed: int
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class BenchmarkTable:
    """Recorded curves over one space."""

    study: str
    rungs: tuple[int, ...]
    search: Mapping[str, Range]
    curves: tuple[Curve, ...]
    default: Mapping[str, Any] | None = None  # the default recipe's configuration
    parameters: float | None = None  # of the model
    seconds: float | None = None  # of the clips that were trained on
    centers: Mapping[str, Center] = field(default_factory=dict)

    def full_value(self, curve: Curve) -> float:
        """The value of a training in full; infinite if it did not get that far."""
        last = curve.rungs[-1] if curve.rungs else None
        if last is None or last.step != self.rungs[-1] or not math.isfinite(last.value):
            return math.inf
        return last.value

    @property
    def best(self) -> Curve:
        """The curve that ends lowest, of those trained in full."""
        return min(self.curves, key=self.full_value)

    @property
    def training_seconds(self) -> float:
        """The mean cost of one training in full."""
        costs = [
            math.fsum(rung.metrics["train_seconds"] for rung in curve.rungs)
            for curve in self.curves
            if math.isfinite(self.full_value(curve))
        ]
        return math.fsum(costs) / len(costs)


def read(path: str | Path) -> BenchmarkTable:
    """The table in a file.

    Raises:
        UserError: The file cannot be read or parsed; the error names file, line and what is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    number = 0
    try:
        parsed = []
        for number, line in enumerate(lines, start=1):  # noqa: B007  # named in the error
            parsed.append(json.loads(line))
        number = 1
        head = parsed[0]
        rungs = tuple(int(step) for step in head["rungs"])
        search = {str(name): distributions.from_json(raw) for name, raw in head["search"].items()}
        default = head.get("default")
        if default is not None:
            default = {name: default[name] for name in search}
        compared = {name: float(head[name]) for name in ("parameters", "seconds") if name in head}
        centers = {name: Center.from_json(raw) for name, raw in head.get("centers", {}).items()}
        curves = []
        for number, row in enumerate(parsed[1:], start=2):  # noqa: B007
            curves.append(_curve(row, rungs, search))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        form = "the form of a table is in search/simulation/benchmark_table.py"
        raise UserError(f"{path}: line {number or 1}: {message}; {form}") from None
    table = BenchmarkTable(
        str(head.get("study", "table")), rungs, search, tuple(curves), default, centers=centers, **compared
    )
    if not any(math.isfinite(table.full_value(curve)) for curve in curves):
        raise UserError(f"{path}: no curve reaches the last rung, {rungs[-1]}; record at least one in full")
    return table


def _curve(row: Mapping[str, Any], steps: tuple[int, ...], search: Mapping[str, Range]) -> Curve:
    drawn = {name: row["configuration"][name] for name in search}
    rungs = []
    for raw_rung, step in zip(row["rungs"], steps, strict=False):
        if raw_rung["step"] != step:
            raise ValueError(f"step {raw_rung['step']} where rung {step} belongs")
        metrics: dict[str, Any] = {"train_seconds": float(raw_rung["seconds"])}
        if raw_rung.get("errors") is not None:
            metrics["errors"] = [int(count) for count in raw_rung["errors"]]
        rungs.append(Rung(step, float(raw_rung["value"]), metrics))
    if len(row["rungs"]) > len(steps):
        raise ValueError(f"{len(row['rungs'])} rungs where the table has {len(steps)}")
    return Curve(drawn, int(row.get("seed", 0)), tuple(rungs))


def of_study(ledger: Ledger) -> str:
    """A finished study's curves as the text of a table; configurations that have not ended are left out."""
    record = ledger.record()
    space = Space.from_json(dict(record.space))
    head: dict[str, Any] = {
        "study": record.name,
        "rungs": list(space.budget.rungs),
        "search": {name: distributions.to_json(knob_range) for name, knob_range in space.search.items()},
    }
    history = ledger.history()
    default = default_configuration(history)
    if default is not None and default.ended:
        head["default"] = dict(default.drawn or {})
    rows = [
        _row(configuration, record.seed)
        for configuration in history
        if configuration.ended and configuration.drawn is not None
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [head, *rows])


def _row(configuration: Configuration, seed: int) -> dict[str, Any]:
    rungs = []
    for rung in configuration.rungs:
        seconds = sum(float(rung.metrics.get(cost) or 0.0) for cost in ("train_seconds", "eval_seconds"))
        row: dict[str, Any] = {"step": rung.step, "value": round(rung.value, 6), "seconds": round(seconds, 3)}
        if rung.metrics.get("errors"):
            row["errors"] = list(rung.metrics["errors"])
        rungs.append(row)
    return {"configuration": dict(configuration.drawn or {}), "seed": seed, "rungs": rungs}
