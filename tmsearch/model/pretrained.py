"""A model's name -> the local folder of its files, or one line that says why not, within seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tmsearch import hub
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError
from tmsearch.foreign import parsers, plain_files
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.formatting import first_line

CARD = "README.md"
# All files of a Whisper folder besides its weights.
_SMALL_FILES = ["*.json", "merges.txt", CARD]
_LARGEST_CARD = 1_000_000  # bytes; the Hub's cards have some thousands
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class PretrainedFolder:
    """A local folder that holds a pretrained Whisper, and the name that the config gives it."""

    name: str
    path: Path
    is_of_hub: bool = False

    @property
    def holds_weights(self) -> bool:
        """Whether the weights should be here: always but in the hub's cache, which may hold the small files only."""
        return not self.is_of_hub or any(self.path.glob("model*.safetensors"))

    def read_json(self, file: str) -> dict[str, Any] | None:
        """The object in `file`; None where there is no such file. Raises InputError where it is not JSON."""
        path = self.path / file
        if not path.is_file():
            return None
        try:
            content = parsers.parse_json(plain_files.read_text(path))
        except ForeignFileError as error:
            raise InputError(f"{path}: not readable as JSON ({first_line(error, 100)}); fetch it again") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds no JSON object; fetch it again")
        return content

    def config(self) -> dict[str, Any]:
        """config.json; raises InputError where it is missing or not that of a Whisper."""
        content = self.read_json("config.json")
        if content is None:
            raise InputError(f"{self.name}: no config.json in it; give a folder that save_pretrained wrote")
        kind = content.get("model_type")
        if kind != "whisper":
            raise InputError(f"{self.name}: a model of type {kind}, not a Whisper; give a Whisper checkpoint")
        return content

    def license(self) -> str | None:
        """The license that the head of the model's card names; None where there is no such card."""
        path = self.path / CARD
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_CARD:
                return None
            _, _, after = path.read_text(encoding="utf-8").partition("---\n")
            head = yaml.safe_load(after.partition("\n---")[0])
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return None  # a card that is not readable tells nothing
        named = head.get("license") if isinstance(head, dict) else None
        return named if isinstance(named, str) and named else None

    def weight_files(self) -> list[Path]:
        """The safetensors files of the weights; pickles are never loaded. Raises InputError where a file is missing."""
        index = self.read_json(_INDEX)
        names = ["model.safetensors"] if index is None else sorted(set(index.get("weight_map", {}).values()))
        for name in names:
            if not (self.path / name).is_file():
                raise InputError(f"{self.name}: no {name} in it; weights are read from safetensors only, save it so")
        return [self.path / name for name in names]


def find(name: str, revision: str | None = None, *, weights: bool = True) -> PretrainedFolder:
    """Finds a model's folder, fetching it into the hub's cache where it is on the hub.

    The hub is asked once; where it cannot be reached, the cache is used as it is. HF_TOKEN opens private and gated
    models.

    Args:
        name: demo/NAME inside this package, a folder, or a hub id.
        revision: Branch, tag or commit on the hub.
        weights: Whether the weights are fetched, besides the small files.

    Raises:
        InputError: There is no such model, or it cannot be fetched.
    """
    if name.startswith("demo/"):
        return PretrainedFolder(name, _demo(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return PretrainedFolder(name, folder)
    if folder.exists():
        raise InputError(f"{name}: a file, not a model folder; give the folder that holds config.json")
    return PretrainedFolder(name, _from_hub(name, revision, weights), is_of_hub=True)


def _demo(name: str) -> Path:
    embedded = sorted(path.parent.name for path in DEMO.glob("*/config.json"))
    short = name.removeprefix("demo/")
    if short not in embedded:
        names = ", ".join(f"demo/{model}" for model in embedded)
        raise InputError(f"{name}: no such embedded model; there are {names}")
    return DEMO / short


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    def choose_files(info: Any) -> list[str]:
        patterns = _weight_patterns(name, {file.rfilename for file in info.siblings or []})
        return _SMALL_FILES + patterns if weights else _SMALL_FILES

    def is_complete(folder: Path) -> bool:
        files = {path.name for path in folder.iterdir()}
        return "config.json" in files and (not weights or _INDEX in files or "model.safetensors" in files)

    repository = hub.Repository(
        "model", name, revision, "model", "model_revision", choose_files, _SMALL_FILES, is_complete
    )
    return hub.fetch(repository)[0]


def _weight_patterns(name: str, present: set[str]) -> list[str]:
    """The safetensors of full precision: repositories also hold weights in other formats and precisions."""
    if "model.safetensors" in present:
        return ["model.safetensors"]
    if _INDEX in present:
        return ["model-*.safetensors"]
    raise InputError(f"{name}: no model.safetensors on the hub; pickled weights are never loaded, choose another copy")
