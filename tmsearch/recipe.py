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

from tmsearch.config import DataConfig, TrainConfig, knob_values
from tmsearch.files import write_atomically

_LIBRARIES = ("tmsearch", "torch", "transformers", "peft", "numpy", "soundfile", "soxr", "whisper-normalizer")
# Settings of the data that recipes of before 0.2.0 have not, and are left out where they are off: those recipes keep
# their text and hash.
_LATER_DATA = ("normalizer", "keep", "channel", "extra", "air_column", "air_channel", "noise")


@dataclass(frozen=True)
class Recipe:
    """One training run, and the evidence that a search has for it."""

    data: DataConfig
    train: TrainConfig
    threads: int
    fingerprint: str | None = None  # of the data; None where any will do
    split: Mapping[str, Any] = field(default_factory=dict)  # what the split must come out as, see `split_facts`
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries that gave the evidence
    evidence: Mapping[str, Any] = field(default_factory=dict)
    supplement: str | None = None  # fingerprint of what is trained on beside the data

    @property
    def hash(self) -> str:
        """A sha256, in hex, of all fields, by which a recipe changed by hand is told from that of its evidence."""
        return hashlib.sha256(json.dumps(_as_floats(_to_json(self)), sort_keys=True).encode()).hexdigest()


def with_supplement(fingerprint: str, supplement: str | None) -> str:
    """The fingerprint of all that is trained on: the data's own where there is nothing beside it."""
    if supplement is None:
        return fingerprint
    return hashlib.sha256(f"{fingerprint}\0{supplement}".encode()).hexdigest()


def split_facts(train: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> dict[str, Any]:
    """How many clips each part of a split has, and a sha256 over their names in order."""
    parts = {"train": list(train), "validation": list(validation), "test": list(test)}
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return {**{name: len(clips) for name, clips in parts.items()}, "sha256": digest}


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a training's result depends on, without importing them."""
    installed = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _to_json(recipe: Recipe) -> dict[str, Any]:
    """The fields in the order of the YAML file, without empty ones."""
    data = dataclasses.asdict(recipe.data)
    for name in _LATER_DATA:
        if data[name] in (None, ()):
            del data[name]
    fields = {
        "data": data,
        "train": knob_values(recipe.train),
        "threads": recipe.threads,
        "fingerprint": recipe.fingerprint,
        "supplement": recipe.supplement,
        "split": dict(recipe.split),
        "versions": dict(recipe.versions),
        "evidence": dict(recipe.evidence),
    }
    return {key: value for key, value in fields.items() if value not in (None, {})}


def _as_floats(value: Any) -> Any:
    """`value` with every integer as a float: 1 and 1.0 count as the same, since YAML and JSON mix them up."""
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def trial_recipe(
    data: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    seed: int,
    max_steps: int,
    threads: int,
    fingerprint: str,
    supplement: str | None = None,
) -> Recipe:
    """What one trial trains: its parameters, with the study's data, seed and steps. `params` may name seed and fold."""
    train = {"seed": seed, **params, "max_steps": max_steps}
    fold = train.pop("fold", data.get("fold", 0))
    return Recipe(
        DataConfig(**{**data, "fold": fold}), TrainConfig(**train), threads, fingerprint, supplement=supplement
    )


def save_recipe(file: Path, recipe: Recipe) -> None:
    """Writes a trial's config.yaml, unless it exists: it alone reproduces the trial, with `tmsearch train`."""
    if not file.exists():
        write_atomically(file, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML; every knob is written, so that a later default changes nothing."""
    fields = {**_to_json(recipe), "hash": recipe.hash}
    return "# `tmsearch train THIS_FILE` trains it.\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
