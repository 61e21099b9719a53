"""A dataset of the Hugging Face hub as a folder of the local cache, or one line that says why not, within seconds."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tmsearch.errors import InputError

Answer = TypeVar("Answer")

# Seconds: for each connection and read, and for the whole look-up, since name resolution heeds no time limit.
_PATIENCE = 5.0
_DEADLINE = 8.0


def fetch(dataset: str, revision: str | None) -> tuple[Path, str]:
    """The repository's folder in the cache, named by its commit, and a remark if the hub could not be asked.

    The hub is asked once, without retries, before anything is downloaded. A pinned commit that the cache holds whole
    needs no network; nor does a branch when the hub cannot be reached. Private and gated datasets need HF_TOKEN.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    pinned = re.fullmatch("[0-9a-f]{40}", revision or "")
    cached = _cached(dataset, revision) if pinned else None
    if cached:
        return cached, ""
    try:
        _within(_DEADLINE, lambda: _look_up(dataset, revision))
    except Exception as error:
        cached = None if _refusal(error) else _cached(dataset, revision)
        if cached is None:
            raise InputError(_explain(dataset, revision, error)) from None
        return cached, "the hub could not be asked for a newer one: this is the cache's"
    return _download(dataset, revision), ""


def _look_up(dataset: str, revision: str | None) -> None:
    """Asks for the dataset. Several configurations and no default one are an InputError now, not after a download."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(dataset, revision=revision, timeout=_PATIENCE)
    configurations = getattr(info.card_data, "configs", None) or []
    names = [str(item.get("config_name", "default")) for item in configurations]
    if len(names) > 1 and "default" not in names and not any(item.get("default") for item in configurations):
        raise InputError(
            f"{dataset}: has {len(names)} configurations ({', '.join(names[:8])}) and no default one; load one with "
            "the datasets library, save_to_disk, and give data.dataset that folder"
        )


def _cached(dataset: str, revision: str | None) -> Path | None:
    """The folder of a snapshot that is whole, without asking the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None


def _download(dataset: str, revision: str | None) -> Path:
    """By the branch's name and not its commit: that is what lets the cache answer for the branch later."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", revision=revision))
    except Exception as error:  # the transport's own classes, the hub's, and the disk's
        raise InputError(_explain(dataset, revision, error)) from None


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


def _explain(dataset: str, revision: str | None, error: BaseException) -> str:
    """One line, in words of our own: a library's message may quote headers."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    who = "HF_TOKEN's owner" if get_token() else "the public (HF_TOKEN is not set)"
    status = _status(error)
    host = urlsplit(constants.ENDPOINT).hostname
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, GatedRepoError):
        return f"{dataset}: gated for {who}; ask for access on its page at {host} and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{dataset}: has no revision {revision} at {host}; check data.revision"
    if isinstance(error, RepositoryNotFoundError):
        return f"{dataset}: no folder here, and none at {host} that {who} may read; check data.dataset and HF_TOKEN"
    if status == 401:
        return f"{dataset}: {host} does not accept HF_TOKEN (401); set a valid one or unset it"
    if status == 403:
        return f"{dataset}: {host} forbids it to {who} (403); set HF_TOKEN to a token that may read it"
    if isinstance(error, ValueError):
        return f"{dataset}: neither a folder here nor a dataset's name, as in owner/name; check data.dataset"
    told = f"answered {status}" if status else _wire(error)
    return f"{dataset}: no folder here, and {host} {told}; check the network, or give data.dataset a folder"


def _wire(error: BaseException) -> str:
    name = type(error).__name__
    if "Offline" in name:
        return "is not asked (HF_HUB_OFFLINE is set) and the cache does not hold it whole"
    if "Timeout" in name:
        return f"did not answer within {_DEADLINE:g} s"
    return f"cannot be reached ({name})"
