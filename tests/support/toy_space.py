"""A space file, and the toy knobs that it is checked against."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import UserError
from search.space import search_space
from search.space.knobs import Knob


def centre(params):
    if params.get("adapters"):
        return 0.5
    return {"big": 1e-5, "small": 4e-5}[params["model"]]


def table(*knobs):
    return {knob.name: knob for knob in knobs}


TRAIN = table(
    Knob("model", (str,), default="big"),
    Knob("max_steps", (int,), default=100),
    Knob("learning_rate", (float,), default=1e-5, low=1e-9, high=1.0, recommended=centre),
    Knob("batch_size", (int,), default=16, low=1, high=64),
    Knob("warmup_steps", (int,), default=0, low=0),
    Knob("adapters", (int,), default=0, low=0, high=64),
    Knob("freeze", (bool,), default=False),
    Knob("gain", (bool, str), default=False, choices=(True, False, "none", "peak")),
    Knob("seconds", (float,), default=None, optional=True, low=1.0, high=30.0, fixed_per_study=True),
    Knob("dropout", (float,), default=0.0, low=0.0, high=0.9),
)
DATA = table(
    Knob("dataset", (str,), help="name of a dataset"),
    Knob("revision", (str,), optional=True),
    Knob("language", (str,), default="en"),
    Knob("test", (float, int), default=0.15, low=0),
)
GOOD = """\
study: toy
data: {dataset: demo, test: 0.2}
budget: {max_steps: 80, rungs: [20, 40, 80]}
train:
  adapters: 0
search:
  model: [big, small]
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  warmup_steps: {low: 0, high: 20, step: 5}
  gain: [true, none]
start:
  - {model: big, learning_rate: 5e-6}
"""
FACTOR = GOOD.replace("low: 1e-6, high: 1e-3, log: true", "low: 0.3, high: 6, log: true, times: recommended")


def load_text(text, *overrides):
    """Loads a text as s.yaml of the working directory, with --set overrides."""
    Path("s.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return search_space.load("s.yaml", train=TRAIN, data=DATA, overrides=overrides)


def mistake(text, *overrides):
    """The one line that a text is refused with."""
    with pytest.raises(UserError) as caught:
        load_text(text, *overrides)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1000
    return line
