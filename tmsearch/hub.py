"""A repository of the Hugging Face hub as a folder of the cache, or one line that says why not, within seconds."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from tmsearch.errors import InputError, UnavailableError, machine_problem

T = TypeVar("T")

REQUEST_TIMEOUT = 5.0  # seconds, for each connection and each read
LOOKUP_TIMEOUT = 8.0  # seconds for the whole look-up, since name resolution ignores the request's timeout


@dataclass(frozen=True)
class Repository:
    """A dataset or model as a person named it, and the knobs that an error message points at.

    `choose_files` takes the hub's description of the repository and returns the patterns of the files to download
    (None: all), or raises InputError. `required_files` are the patterns of what a cached copy must hold to be used
    without the hub, and `is_complete` checks the folder of such a copy.
    """

    kind: Literal["dataset", "model"]
    name: str
    revision: str | None
    knob: str
    revision_knob: str
    choose_files: Callable[[Any], Sequence[str] | None]
    required_files: Sequence[str] | None = None
    is_complete: Callable[[Path], bool] = lambda folder: True


def fetch(repository: Repository) -> tuple[Path, str]:
    """Downloads a repository into the cache, unless it is there already.

    The hub is asked once, without retries, before anything is downloaded. A pinned commit that is complete in the
    cache needs no network; nor does a branch when the hub cannot be reached. Private and gated ones need HF_TOKEN.

    Returns:
        The folder in the cache, named by its commit, and a remark if the hub could not be reached.

    Raises:
        InputError: One line that says why there is no such folder.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # a run has its own
    is_pinned = re.fullmatch("[0-9a-f]{40}", repository.revision or "")
    cached = _find_cached(repository) if is_pinned else None
    if cached:
        return cached, ""
    try:
        patterns = call_within(LOOKUP_TIMEOUT, lambda: repository.choose_files(_look_up(repository)))
    except Exception as error:
        cached = None if _is_refusal(error) else _find_cached(repository)
        if cached is None:
            raise _refusal(repository, error) from None
        return cached, "the hub could not be asked for a newer one: this is the cache's"
    return _download(repository, patterns), ""


def _look_up(repository: Repository) -> Any:
    from huggingface_hub import HfApi

    return HfApi().repo_info(
        repository.name, repo_type=repository.kind, revision=repository.revision, timeout=REQUEST_TIMEOUT
    )


def _snapshot(repository: Repository, patterns: Sequence[str] | None, *, offline: bool) -> Path:
    """By the branch's name instead of its commit: that lets the cache answer for the branch later."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repository.name,
        repo_type=repository.kind,
        revision=repository.revision,
        allow_patterns=None if patterns is None else list(patterns),
        local_files_only=offline,
    )
    return Path(folder)


def _find_cached(repository: Repository) -> Path | None:
    """The folder of a complete snapshot in the cache, without asking the hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(repository, repository.required_files, offline=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if repository.is_complete(folder) else None


def _download(repository: Repository, patterns: Sequence[str] | None) -> Path:
    try:
        return _snapshot(repository, patterns, offline=False)
    except Exception as error:  # the transport's own classes, the hub's, and the disk's
        raise _refusal(repository, error) from None


def _refusal(repository: Repository, error: BaseException) -> InputError:
    """What the hub says no to is wrong everywhere; a network or a disk may be so on this machine alone."""
    explanation = _explain(repository, error)
    return InputError(explanation) if _is_refusal(error) else UnavailableError(explanation)


def call_within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises, or TimeoutError; a thread that hangs is abandoned."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def _status(error: BaseException) -> int:
    """The HTTP status that the hub answered with; 0 if it did not."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _is_refusal(error: BaseException) -> bool:
    """Whether the hub itself said no: then a cached copy must not be used instead."""
    return isinstance(error, InputError | ValueError) or _status(error) in (401, 403, 404, 410)


def _explain(repository: Repository, error: BaseException) -> str:
    """One line, in words of our own: a library's message may quote headers."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name = repository.name
    knob = repository.knob
    reader = "HF_TOKEN's owner" if get_token() else "the public (HF_TOKEN is not set)"
    status = _status(error)
    host = urlsplit(constants.ENDPOINT).hostname
    if isinstance(error, InputError):
        return str(error)
    problem = machine_problem(error)
    if problem is not None:
        return f"{name}: it cannot be fetched: {problem}"
    if isinstance(error, GatedRepoError):
        return f"{name}: gated for {reader}; ask for access on its page at {host} and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{name}: has no revision {repository.revision} at {host}; check {repository.revision_knob}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name}: no folder here, and none at {host} that {reader} may read; check {knob} and HF_TOKEN"
    if status == 401:
        return f"{name}: {host} does not accept HF_TOKEN (401); set a valid one or unset it"
    if status == 403:
        return f"{name}: {host} forbids it to {reader} (403); set HF_TOKEN to a token that may read it"
    if isinstance(error, ValueError):
        return f"{name}: neither a folder here nor a {repository.kind}'s name, as in owner/name; check {knob}"
    failure = f"answered {status}" if status else connection_failure(error)
    return f"{name}: no folder here, and {host} {failure}; check the network, or give {knob} a folder"


def connection_failure(error: BaseException) -> str:
    """Why the hub gave no answer, in words of our own, as they follow its name."""
    name = type(error).__name__
    if "Offline" in name:
        return "is not asked (HF_HUB_OFFLINE is set) and the cache does not hold all of it"
    if "Timeout" in name:
        return f"did not answer within {LOOKUP_TIMEOUT:g} s"
    return f"cannot be reached ({name})"
