"""How values look on a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.study import Summary


def short(value: Any) -> str:
    """A value as a line shows it: a model by its last name, a number in few digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rpartition("/")[2]
    return str(value)


def searched(space: Mapping[str, Any], params: Mapping[str, Any] | None) -> str:
    """The searched knobs of one configuration on one line."""
    if params is None:
        return "not drawn yet"
    # A confirmation's trainings differ in these, which no space of theirs searches.
    also = [name for name in ("seed", "fold") if name not in space["search"] and name not in space["train"]]
    return " ".join(f"{name}={short(params[name])}" for name in [*space["search"], *also] if name in params)


def clock_time(seconds: float) -> str:
    """Seconds as 0:42 or 1:02:03."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def cost(summary: Summary) -> str:
    """What a study cost, and what judging early saved."""
    saved = f", {clock_time(summary.saved)} saved by not training all in full" if summary.saved else ""
    return f"{clock_time(summary.spent)} of training and evaluation{saved}"
