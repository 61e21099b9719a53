"""Tables of recorded learning curves: JSON lines, a header and one configuration a line.

The header says what was searched and under which ladder the curves were recorded:

    {"study": "demo", "rungs": [10, 20, 40, 80], "search": {"learning_rate": {"kind": "float", "low": 1e-05, ...}}}

`search` holds ranges as Space.to_json writes them. Then one line a configuration:

    {"configuration": {"learning_rate": 0.0003}, "seed": 0, "rungs": [
        {"step": 10, "value": 0.91, "seconds": 2.1, "errors": [0, 3, 1]}, ...]}

`value` is what is minimised, `seconds` what the segment that ends at `step` cost, training and evaluation; `errors`, by
clip in one order for the whole table, may be left out. A curve may end early, where its training failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.records import Configuration, Rung
from search.space import distributions
from search.space.distributions import Range
from search.space.search_space import Space
from search.storage.ledger import Ledger


@dataclass(frozen=True)
class Curve:
    """One configuration trained as far as it came; each rung's metrics hold `train_seconds` and perhaps `errors`."""

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

    def full(self, curve: Curve) -> float:
        """The value of a training in full; infinite where it did not come so far."""
        last = curve.rungs[-1] if curve.rungs else None
        return last.value if last and last.step == self.rungs[-1] and math.isfinite(last.value) else math.inf

    @property
    def best(self) -> Curve:
        return min(self.curves, key=self.full)

    @property
    def training_seconds(self) -> float:
        """What one training in full costs on average."""
        whole = [one for one in self.curves if math.isfinite(self.full(one))]
        costs = [math.fsum(rung.metrics["train_seconds"] for rung in one.rungs) for one in whole]
        return math.fsum(costs) / len(costs)


def read(path: str | Path) -> BenchmarkTable:
    """The table in a file; raises UserError, which names file, line and what is wrong."""
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
        curves = []
        for number, row in enumerate(parsed[1:], start=2):  # noqa: B007
            curves.append(_curve(row, rungs, search))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(f"{path}: line {number or 1}: {said}; the form of a table is in search/tables.py") from None
    table = BenchmarkTable(str(head.get("study", "table")), rungs, search, tuple(curves))
    if not any(math.isfinite(table.full(one)) for one in curves):
        raise UserError(f"{path}: no curve reaches the last rung, {rungs[-1]}; record at least one in full")
    return table


def _curve(row: Mapping[str, Any], rungs: tuple[int, ...], search: Mapping[str, Range]) -> Curve:
    drawn = {name: row["configuration"][name] for name in search}
    found = []
    for rung, step in zip(row["rungs"], rungs, strict=False):
        if rung["step"] != step:
            raise ValueError(f"step {rung['step']} where rung {step} belongs")
        metrics: dict[str, Any] = {"train_seconds": float(rung["seconds"])}
        if rung.get("errors") is not None:
            metrics["errors"] = [int(count) for count in rung["errors"]]
        found.append(Rung(step, float(rung["value"]), metrics))
    if len(row["rungs"]) > len(rungs):
        raise ValueError(f"{len(row['rungs'])} rungs where the table has {len(rungs)}")
    return Curve(drawn, int(row.get("seed", 0)), tuple(found))


def of_study(ledger: Ledger) -> str:
    """A finished study's curves as the text of a table; configurations that a person's stop cut short are left out."""
    record, history = ledger.record(), ledger.history()
    space = Space.from_json(dict(record.space))
    head = {
        "study": record.name,
        "rungs": list(space.budget.rungs),
        "search": {name: distributions.to_json(one) for name, one in space.search.items()},
    }
    rows = [_row(one, record.seed) for one in history if one.ended and one.drawn is not None]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [head, *rows])


def _row(one: Configuration, seed: int) -> dict[str, Any]:
    rungs = []
    for rung in one.rungs:
        seconds = sum(float(rung.metrics.get(cost) or 0.0) for cost in ("train_seconds", "eval_seconds"))
        found = {"step": rung.step, "value": round(rung.value, 6), "seconds": round(seconds, 3)}
        rungs.append(found | ({"errors": list(rung.metrics["errors"])} if rung.metrics.get("errors") else {}))
    return {"configuration": dict(one.drawn or {}), "seed": seed, "rungs": rungs}
