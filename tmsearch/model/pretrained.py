"""A model's name -> the folder that its files lie in, or one line that says why not, within seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmsearch import hub
from tmsearch.errors import InputError
from tmsearch.formatting import first_line

# All that a Whisper folder holds beside its weights.
_SMALL_FILES = ["*.json", "merges.txt"]
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class PretrainedFolder:
    """A folder of this machine that holds a checkpoint, and the name that a person gave it."""

    name: str
    folder: Path

    def json(self, file: str) -> dict[str, Any] | None:
        """The object in `file`; None where there is no such file; InputError where it is not JSON."""
        path = self.folder / file
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not readable as JSON ({first_line(error, 100)}); fetch it again") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: holds no JSON object; fetch it again")
        return content

    def config(self) -> dict[str, Any]:
        """config.json; InputError where it is missing or not that of a Whisper."""
        content = self.json("config.json")
        if content is None:
            raise InputError(f"{self.name}: no config.json in it; give a folder that save_pretrained wrote")
        kind = content.get("model_type")
        if kind != "whisper":
            raise InputError(f"{self.name}: a model of type {kind}, not a Whisper; give a Whisper checkpoint")
        return content

    def weight_files(self) -> list[Path]:
        """The safetensors files of the weights; InputError where one is missing. Pickles are never loaded."""
        index = self.json(_INDEX)
        names = ["model.safetensors"] if index is None else sorted(set(index.get("weight_map", {}).values()))
        for name in names:
            if not (self.folder / name).is_file():
                raise InputError(f"{self.name}: no {name} in it; weights are read from safetensors only, save it so")
        return [self.folder / name for name in names]


def find(name: str, revision: str | None = None, *, weights: bool = True) -> PretrainedFolder:
    """The folder of `name`: demo/NAME inside this package, a folder, or a hub id, fetched into the hub's cache.

    Without `weights` only small files are fetched. The hub is asked once; where it is out of reach, what the cache
    holds will do. HF_TOKEN opens private and gated models. Raises InputError.
    """
    if name.startswith("demo/"):
        return PretrainedFolder(name, _demo(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return PretrainedFolder(name, folder)
    if folder.exists():
        raise InputError(f"{name}: a file, not a model folder; give the folder that holds config.json")
    return PretrainedFolder(name, _from_hub(name, revision, weights))


def _demo(name: str) -> Path:
    home = Path(__file__).parents[1] / "demo"
    known = sorted(path.parent.name for path in home.glob("*/config.json"))
    short = name.removeprefix("demo/")
    if short not in known:
        raise InputError(f"{name}: no such embedded model; there are {', '.join(f'demo/{one}' for one in known)}")
    return home / short


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    def choose(info: Any) -> list[str]:
        present = {file.rfilename for file in info.siblings or []}
        return _SMALL_FILES + (_weight_patterns(name, present) if weights else [])

    def whole(folder: Path) -> bool:
        there = {path.name for path in folder.iterdir()}
        return "config.json" in there and (not weights or _INDEX in there or "model.safetensors" in there)

    wanted = hub.Repository("model", name, revision, "model", "model_revision", choose, _SMALL_FILES, whole)
    return hub.fetch(wanted)[0]


def _weight_patterns(name: str, present: set[str]) -> list[str]:
    """Not all weights: repositories also hold them in other formats and precisions."""
    if "model.safetensors" in present:
        return ["model.safetensors"]
    if _INDEX in present:
        return ["model-*.safetensors"]
    raise InputError(f"{name}: no model.safetensors on the hub; pickled weights are never loaded, choose another copy")
