"""A recipe: everything that one training run needs, as a YAML file that a person can read."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.files import write_atomically


@dataclass(frozen=True)
class Recipe:
    """One training run. `fingerprint` is the data's, `evidence` what a search found out about it.

    `split` says what the split must come out as (see `split_facts`), `versions` of which libraries gave the evidence.
    """

    data: DataConfig
    train: TrainConfig
    threads: int
    fingerprint: str | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """sha256, in hex, of all of it: a recipe that was changed by hand is not the one of its evidence."""
        return hashlib.sha256(json.dumps(_as_numbers(_whole(self)), sort_keys=True).encode()).hexdigest()


def split_facts(train: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> dict[str, Any]:
    """How many clips each part has, and a sha256 over their names in order."""
    parts = {"train": list(train), "validation": list(validation), "test": list(test)}
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {**{name: len(names) for name, names in parts.items()}, "sha256": digest}


def versions() -> dict[str, str]:
    """Of Python and the libraries that a training's result depends on, without importing them."""
    names = ("tmsearch", "torch", "transformers", "peft", "numpy", "soundfile", "soxr", "whisper-normalizer")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _whole(recipe: Recipe) -> dict[str, Any]:
    whole = {
        "data": dataclasses.asdict(recipe.data),
        "train": dataclasses.asdict(recipe.train),
        "threads": recipe.threads,
        "fingerprint": recipe.fingerprint,
        "split": dict(recipe.split),
        "versions": dict(recipe.versions),
        "evidence": dict(recipe.evidence),
    }
    return {key: value for key, value in whole.items() if value not in (None, {})}


def _as_numbers(value: Any) -> Any:
    """1 and 1.0 are one value, as YAML and JSON mix them up."""
    if isinstance(value, dict):
        return {key: _as_numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_numbers(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def trial_recipe(
    data: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    seed: int,
    max_steps: int,
    threads: int,
    fingerprint: str,
) -> Recipe:
    """What one trial trains: its parameters, with the study's data, seed and steps. `params` may name seed and fold."""
    train = {"seed": seed, **params, "max_steps": max_steps}
    fold = train.pop("fold", data.get("fold", 0))
    return Recipe(DataConfig(**{**data, "fold": fold}), TrainConfig(**train), threads, fingerprint)


def save_recipe(file: Path, recipe: Recipe) -> None:
    """A trial's config.yaml, written before it trains: alone it reproduces the trial, `tmsearch train` reads it."""
    if not file.exists():
        write_atomically(file, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML; every knob is written, so that a later default changes nothing."""
    kept = {**_whole(recipe), "hash": recipe.hash}
    return "# `tmsearch train THIS_FILE` trains it.\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
