"""A recipe: everything that one training run needs, as a YAML file that a person can read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import DataConfig, TrainConfig


@dataclass(frozen=True)
class Recipe:
    """One training run. `fingerprint` is the data's, `evidence` what a search found out about it."""

    data: DataConfig
    train: TrainConfig
    threads: int
    fingerprint: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def recipe_of(job: Mapping[str, Any]) -> Recipe:
    """What a trial's segment trains: its parameters, with the study's data and the fold that they may name."""
    params = {"seed": job["seed"], **job["params"], "max_steps": job["max_steps"]}
    data = {**job["data"], "fold": params.pop("fold", job["data"].get("fold", 0))}
    fingerprint = job["facts"]["data"]["fingerprint"]
    return Recipe(DataConfig(**data), TrainConfig(**params), job["threads"], fingerprint)


def keep_recipe(file: Path, recipe: Recipe) -> None:
    """A trial's config.yaml, written before it trains: alone it reproduces the trial, `tmsearch train` reads it."""
    if not file.exists():
        write_atomically(file, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML; every knob is written, so that a later default changes nothing."""
    whole = {
        "data": dataclasses.asdict(recipe.data),
        "train": dataclasses.asdict(recipe.train),
        "threads": recipe.threads,
        "fingerprint": recipe.fingerprint,
        "evidence": dict(recipe.evidence),
    }
    kept = {key: value for key, value in whole.items() if value not in (None, {})}
    return "# `tmsearch train THIS_FILE` trains it.\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def write_atomically(file: Path, text: str) -> None:
    """Replace `file` as a whole: a kill leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)
