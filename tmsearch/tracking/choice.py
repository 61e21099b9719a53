"""Which trackers a study or a final training has, what their clients find in their environment, how to look at them.

Imports no client: the command line asks before anything else is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch.errors import InputError
from tmsearch.files import write_atomically

FOLDER = "trackers"  # within a study's folder or a model's
NONE = "none"  # in place of a tracker's name: no tracker any more
VARIABLE = "TMSEARCH_TRACK"
_CHOICE = "trackers.json"
# A client's own reports of its use, and of its faults, leave the machine without anybody's having asked for it.
_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


@dataclass(frozen=True)
class TrackerKind:
    """A tracker by the package of its client and the extra that installs it."""

    package: str
    extra: str


KINDS = {
    "trackio": TrackerKind("trackio", "trackio"),
    "wandb": TrackerKind("wandb", "wandb"),
    "mlflow": TrackerKind("mlflow", "mlflow"),
}


def parse(texts: Sequence[str], option: str = "--track") -> tuple[str, ...]:
    """Names of trackers from `trackio,wandb` or several such texts, each once; none for `none`. Raises InputError."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in KINDS and name != NONE:
            raise InputError(f"{option}: no such tracker: {name!r}; there are {', '.join(KINDS)}, or {NONE}")
    if NONE in names and len(set(names)) > 1:
        raise InputError(f"{option}: {NONE} beside {next(name for name in names if name != NONE)}; give one of them")
    return tuple(dict.fromkeys(name for name in names if name != NONE))


def is_installed(name: str) -> bool:
    """Whether a tracker's client can be imported."""
    return importlib.util.find_spec(KINDS[name].package) is not None


def check_installed(names: Sequence[str]) -> None:
    """Raises InputError where a tracker's client is missing, with the extra that installs it."""
    for name in names:
        if not is_installed(name):
            extra = KINDS[name].extra
            raise InputError(
                f"--track {name}: its client is not installed; install the extra [{extra}], as in pip install "
                f"'tmsearch[{extra}]', or give --track {NONE}"
            )


def choose(given: Sequence[str] | None, folder: Path | None) -> tuple[str, ...]:
    """The trackers to mirror to: those given, else those remembered in `folder`, else TMSEARCH_TRACK's.

    Where TMSEARCH_TRACK is `none` nothing is mirrored unless it is given. Raises InputError for a tracker that is
    unknown or not installed; writes nothing.
    """
    remembered = _remembered(folder) if folder else None
    if given:
        names = parse(given)
    elif remembered is not None and os.environ.get(VARIABLE, "").strip() != NONE:
        names = remembered
    else:
        names = parse([os.environ.get(VARIABLE, "")], VARIABLE)
    check_installed(names)
    return names


def remember(names: Sequence[str], folder: Path) -> None:
    """Keep the choice in a study's folder or a model's, for the next command on it."""
    if _remembered(folder) != tuple(names):
        write_atomically(folder / FOLDER / _CHOICE, json.dumps(list(names)) + "\n")


def _remembered(folder: Path) -> tuple[str, ...] | None:
    try:
        names = json.loads((folder / FOLDER / _CHOICE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tuple(name for name in names if name in KINDS) if isinstance(names, list) else None


def environment(name: str, folder: Path, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Defaults for the environment of a tracker's client: what it writes stays within `folder`, and it is quiet.

    Weights & Biases is offline unless its key is in `variables`. Variables that a person has set take precedence.
    """
    own = folder.resolve() / FOLDER / name
    if name == "trackio":
        return {**_NO_TELEMETRY, "TRACKIO_DIR": str(own)}
    if name == "mlflow":
        return {**_NO_TELEMETRY, "MLFLOW_TRACKING_URI": f"sqlite:///{own}/mlflow.db", "GIT_PYTHON_REFRESH": "quiet"}
    mode = "online" if variables.get("WANDB_API_KEY") else "offline"
    places = {variable: str(own) for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")}
    return {**_NO_TELEMETRY, **places, "WANDB_MODE": mode, "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}


def where(name: str, folder: Path, project: str, variables: Mapping[str, str] = os.environ) -> str:
    """A line for a person: where a tracker keeps its runs, and the command that shows them."""
    settings = {**environment(name, folder, variables), **variables}
    if name == "trackio":
        remote = settings.get("TRACKIO_SPACE_ID") or settings.get("TRACKIO_SERVER_URL")
        show = f"trackio show --project {shlex.quote(project)}"
        place = remote or f"this machine; TRACKIO_DIR={shlex.quote(settings['TRACKIO_DIR'])} {show}"
    elif name == "mlflow":
        uri = settings["MLFLOW_TRACKING_URI"]
        is_local = uri.startswith("sqlite:")
        place = f"this machine; mlflow ui --backend-store-uri {shlex.quote(uri)}" if is_local else uri.split("@")[-1]
    elif settings["WANDB_MODE"] == "offline":
        runs = shlex.quote(settings["WANDB_DIR"])
        place = f"offline, as WANDB_API_KEY is not set; (cd {runs} && wandb sync --include-synced) uploads them"
    else:
        place = f"Weights & Biases, {settings['WANDB_MODE']}"
    return f"{name}: {place}"
