"""A model's name -> the folder that its files lie in, or one line that says why not, within seconds."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmsearch.errors import InputError

# For each connection and read, and for the whole look-up, since name resolution heeds no time limit.
PATIENCE_SECONDS = 5.0
DEADLINE_SECONDS = 8.0
# All that a Whisper folder holds beside its weights.
_SMALL_FILES = ["*.json", "merges.txt"]
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Origin:
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
            raise InputError(f"{path}: not readable as JSON ({_first_line(error)}); fetch it again") from error
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


def find(name: str, revision: str | None = None, *, weights: bool = True) -> Origin:
    """The folder of `name`: demo/NAME inside this package, a folder, or a hub id, fetched into the hub's cache.

    Without `weights` only small files are fetched. The hub is asked once; where it is out of reach, what the cache
    holds will do. HF_TOKEN opens private and gated models. Raises InputError.
    """
    if name.startswith("demo/"):
        return Origin(name, _demo(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Origin(name, folder)
    if folder.exists():
        raise InputError(f"{name}: a file, not a model folder; give the folder that holds config.json")
    return Origin(name, _from_hub(name, revision, weights))


def _demo(name: str) -> Path:
    home = Path(__file__).parent / "demo"
    known = sorted(path.parent.name for path in home.glob("*/config.json"))
    short = name.removeprefix("demo/")
    if short not in known:
        raise InputError(f"{name}: no such embedded model; there are {', '.join(f'demo/{one}' for one in known)}")
    return home / short


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        present = _within_deadline(name, revision)
        wanted = _SMALL_FILES + (_weight_patterns(name, present) if weights else [])
        return _snapshot(name, revision, wanted)
    except InputError:
        raise
    except errors.GatedRepoError:
        fault = "gated on the hub; accept its terms there and set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        fault = "no folder here, and the hub knows no such model, or HF_TOKEN has no right to it; check the name"
    except errors.RevisionNotFoundError:
        fault = f"the hub has no revision {revision} of it; check model_revision"
    except errors.HFValidationError:
        fault = "no such folder, and no hub id either; write owner/name"
    except Exception as error:  # whatever today's HTTP client raises for want of a network, and a full disk
        status = int(getattr(getattr(error, "response", None), "status_code", 0))
        if 400 <= status < 500:
            fault = f"the hub refuses it ({status}); check HF_TOKEN"
        else:
            cached = _cached(name, revision)
            if cached is not None:
                return cached
            fault = f"no folder here, not in the hub's cache, and the hub is out of reach ({_first_line(error)})"
    raise InputError(f"{name}: {fault}")


def _within_deadline(name: str, revision: str | None) -> set[str]:
    """The names of the repository's files; raises what the hub's client raises, or TimeoutError."""
    from huggingface_hub import HfApi

    answers: list[set[str]] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(name, revision=revision, timeout=PATIENCE_SECONDS, token=_token())
            answers.append({file.rfilename for file in info.siblings or []})
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)  # one that hangs is left behind
    thread.start()
    thread.join(DEADLINE_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {DEADLINE_SECONDS:g} s")
    return answers[0]


def _weight_patterns(name: str, present: set[str]) -> list[str]:
    """Not all weights: repositories also hold them in other formats and precisions."""
    if "model.safetensors" in present:
        return ["model.safetensors"]
    if _INDEX in present:
        return ["model-*.safetensors"]
    raise InputError(f"{name}: no model.safetensors on the hub; pickled weights are never loaded, choose another copy")


def _snapshot(name: str, revision: str | None, wanted: list[str], *, offline: bool = False) -> Path:
    """By the branch's name and not its commit: that is what lets the cache answer for the branch later."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(name, revision=revision, token=_token(), allow_patterns=wanted, local_files_only=offline)
    )


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(name, revision, _SMALL_FILES, offline=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _token() -> str | None:
    return os.environ.get("HF_TOKEN") or None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:100] if lines else type(error).__name__
