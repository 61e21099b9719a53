"""The commands export and train."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search import study, yaml_reader
from search.errors import UserError
from search.knobs import check, check_keys
from search.places import Place
from search.records import Configuration
from search.storage import open_storage
from search.study import Summary
from tmsearch import __version__
from tmsearch.cli.spaces import DATA, TRAIN
from tmsearch.config import DataConfig, Knob, TrainConfig
from tmsearch.recipe import Recipe, recipe_text, write_atomically


def export(arguments: argparse.Namespace) -> int:
    """Write a configuration as a recipe."""
    storage = open_storage(arguments.storage)
    summary = study.summarise(study.open_study(storage, arguments.study))
    one = _chosen(summary, arguments.trial)
    text = recipe_text(_recipe(summary, one))
    if arguments.output is None or arguments.output == "-":
        print(text, end="")
        return 0
    file = Path(arguments.output)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"{file}: no file can be written there; name one in a folder that exists")
    write_atomically(file, text)
    print(f"{file}: trial {one.number} of study {summary.record.name}; next: tmsearch train {file}")
    return 0


def _chosen(summary: Summary, number: int | None) -> Configuration:
    name = summary.record.name
    if number is None:
        if summary.best is None:
            raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` goes on")
        return summary.best
    if number >= len(summary.history):
        raise UserError(f"{name}: --trial {number}: there are configurations 0 to {len(summary.history) - 1}")
    if summary.history[number].params is None:
        raise UserError(f"{name}: --trial {number}: its parameters are not drawn yet")
    return summary.history[number]


def _recipe(summary: Summary, one: Configuration) -> Recipe:
    record = summary.record
    params = {"seed": record.seed, **(one.params or {}), "max_steps": record.space["budget"]["max_steps"]}
    micro = one.metrics.get("micro_batch")  # what memory took: sums of other parts differ in their last bits
    if micro and micro < params.get("batch_size", TrainConfig.batch_size):
        params["micro_batch_size"] = micro
    base = summary.facts.get(f"baseline:{params.get('model', TrainConfig.model)}", {})
    evidence = {
        "study": record.name,
        "trial": one.number,
        "state": one.state,
        "steps": one.steps,
        "validation_wer": one.value,
        "zero_shot_wer": base.get("wer"),
        "configurations": len(summary.history),
        "tmsearch": __version__,
    }
    return Recipe(
        DataConfig(**record.space["data"]),
        TrainConfig(**params),
        threads=summary.facts["threads"],
        fingerprint=summary.facts["data"]["fingerprint"],
        evidence=evidence,
    )


def read_recipe(path: str) -> Recipe:
    """A recipe file, checked against every knob; raises UserError."""
    raw, root = yaml_reader.read(path), Place(path)
    check_keys(raw, ("data", "train", "threads", "fingerprint", "evidence"), root)
    data = _section(raw.get("data"), DATA, root.at("data"))
    if "dataset" not in data:
        raise root.at("data").at("dataset").error("missing; give what `tmsearch export` writes there")
    train = _section(raw.get("train"), TRAIN, root.at("train"))
    threads, fingerprint = raw.get("threads"), raw.get("fingerprint")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise root.at("threads").error("no whole number from 1 on; leave it out, or give what the search used")
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise root.at("fingerprint").error("no text; leave it out, or give what `tmsearch export` writes there")
    evidence = raw.get("evidence")
    return Recipe(
        DataConfig(**data),
        TrainConfig(**train),
        threads=threads or len(os.sched_getaffinity(0)),
        fingerprint=fingerprint,
        evidence=evidence if isinstance(evidence, dict) else {},
    )


def _section(raw: Any, knobs: Mapping[str, Knob], place: Place) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise place.error("missing or no mapping; `tmsearch export STUDY -o FILE` writes a whole recipe")
    check_keys(raw, tuple(knobs), place, "knob")
    return {name: check(knobs[name], value, place.at(name)) for name, value in raw.items()}


class _Stop:
    """Ctrl-C and SIGTERM: finish the step, save, leave."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signal)

    def _signal(self, number: int, frame: object) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def train(arguments: argparse.Namespace) -> int:
    """The final training run."""
    recipe = read_recipe(arguments.recipe)
    path = Path(arguments.recipe)
    folder = Path(arguments.output) if arguments.output else path.with_suffix("")
    if folder == path or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: not a folder; name one with -o")
    from tmsearch.cli.run import THREADS_THAT_SLEEP_SOON, cache_folder

    for name, value in THREADS_THAT_SLEEP_SOON.items():
        os.environ.setdefault(name, value)  # before torch is imported, which reads it once
    from tmsearch.final import train as train_recipe

    return train_recipe(recipe, folder, arguments.dtype, cache_folder(), _Stop(), _say)


def _say(line: str, passing: bool = False) -> None:
    """One line; a passing one (a step's loss) is overwritten by the next on a terminal and left out of a pipe."""
    if not passing:
        print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)
    elif sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)
