"""A training's curves, read from its TensorBoard event files."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

STEP_TAGS = ("loss", "learning_rate", "gradient_norm")


@dataclass
class StepScalars:
    """The scalars of one step; `time` in seconds since 1970 of the first of them."""

    time: float
    scalars: dict[str, float] = field(default_factory=dict)


def read_curves(folder: Path, tags: Collection[str]) -> dict[int, StepScalars]:
    """The finite scalars with these tags by step, in the order of the steps; a file may still be written."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    by_step: dict[int, StepScalars] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.tag in tags and value.HasField("simple_value") and math.isfinite(value.simple_value):
                    step = by_step.setdefault(event.step, StepScalars(event.wall_time))
                    step.scalars[value.tag] = value.simple_value
    return dict(sorted(by_step.items()))
