"""A repository of the Hugging Face hub as a folder of the cache, or one line that says why not, within seconds."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tmsearch.errors import InputError

Answer = TypeVar("Answer")

# Seconds: for each connection and read, and for the whole look-up, since name resolution heeds no time limit.
PATIENCE = 5.0
DEADLINE = 8.0


@dataclass(frozen=True)
class Repository:
    """A dataset or model as a person named it, and the knobs that an error points at.

    `choose` looks at the hub's description and gives the patterns of the files to download (None: all), or raises
    InputError; `least` are the patterns of what the cache must hold to do without the hub, and `whole` says whether
    a cached folder does.
    """

    kind: Literal["dataset", "model"]
    name: str
    revision: str | None
    knob: str
    revision_knob: str
    choose_files: Callable[[Any], Sequence[str] | None]
    required_files: Sequence[str] | None = None
    is_complete: Callable[[Path], bool] = lambda folder: True


def fetch(wanted: Repository) -> tuple[Path, str]:
    """The repository's folder in the cache, named by its commit, and a remark if the hub could not be asked.

    The hub is asked once, without retries, before anything is downloaded. A pinned commit that the cache holds whole
    needs no network; nor does a branch when the hub cannot be reached. Private and gated ones need HF_TOKEN.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # a run has its own
    pinned = re.fullmatch("[0-9a-f]{40}", wanted.revision or "")
    cached = _cached(wanted) if pinned else None
    if cached:
        return cached, ""
    try:
        patterns = _within(DEADLINE, lambda: wanted.choose_files(_look_up(wanted)))
    except Exception as error:
        cached = None if _refusal(error) else _cached(wanted)
        if cached is None:
            raise InputError(_explain(wanted, error)) from None
        return cached, "the hub could not be asked for a newer one: this is the cache's"
    return _download(wanted, patterns), ""


def _look_up(wanted: Repository) -> Any:
    from huggingface_hub import HfApi

    return HfApi().repo_info(wanted.name, repo_type=wanted.kind, revision=wanted.revision, timeout=PATIENCE)


def _snapshot(wanted: Repository, patterns: Sequence[str] | None, *, offline: bool) -> Path:
    """By the branch's name and not its commit: that is what lets the cache answer for the branch later."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            wanted.name,
            repo_type=wanted.kind,
            revision=wanted.revision,
            allow_patterns=list(patterns) if patterns is not None else None,
            local_files_only=offline,
        )
    )


def _cached(wanted: Repository) -> Path | None:
    """The folder of a snapshot that is whole, without asking the hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(wanted, wanted.required_files, offline=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if wanted.is_complete(folder) else None


def _download(wanted: Repository, patterns: Sequence[str] | None) -> Path:
    try:
        return _snapshot(wanted, patterns, offline=False)
    except Exception as error:  # the transport's own classes, the hub's, and the disk's
        raise InputError(_explain(wanted, error)) from None


def _within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What `call` returns or raises, or TimeoutError; the thread that hangs is left behind."""
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError
    return answers[0]


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _refusal(error: BaseException) -> bool:
    """Whether the hub itself said no: then what the cache holds must not be used instead."""
    return isinstance(error, InputError | ValueError) or _status(error) in (401, 403, 404, 410)


def _explain(wanted: Repository, error: BaseException) -> str:
    """One line, in words of our own: a library's message may quote headers."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name, knob = wanted.name, wanted.knob
    who = "HF_TOKEN's owner" if get_token() else "the public (HF_TOKEN is not set)"
    status = _status(error)
    host = urlsplit(constants.ENDPOINT).hostname
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, GatedRepoError):
        return f"{name}: gated for {who}; ask for access on its page at {host} and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{name}: has no revision {wanted.revision} at {host}; check {wanted.revision_knob}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name}: no folder here, and none at {host} that {who} may read; check {knob} and HF_TOKEN"
    if status == 401:
        return f"{name}: {host} does not accept HF_TOKEN (401); set a valid one or unset it"
    if status == 403:
        return f"{name}: {host} forbids it to {who} (403); set HF_TOKEN to a token that may read it"
    if isinstance(error, ValueError):
        return f"{name}: neither a folder here nor a {wanted.kind}'s name, as in owner/name; check {knob}"
    told = f"answered {status}" if status else _wire(error)
    return f"{name}: no folder here, and {host} {told}; check the network, or give {knob} a folder"


def _wire(error: BaseException) -> str:
    name = type(error).__name__
    if "Offline" in name:
        return "is not asked (HF_HUB_OFFLINE is set) and the cache does not hold it whole"
    if "Timeout" in name:
        return f"did not answer within {DEADLINE:g} s"
    return f"cannot be reached ({name})"
