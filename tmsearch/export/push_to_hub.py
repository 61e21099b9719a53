"""A finished model folder uploaded to the Hugging Face hub, private unless asked otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tmsearch.errors import InputError
from tmsearch.hub import REQUEST_TIMEOUT

# What a user of the model needs. Clips' texts, TensorBoard events and options with this machine's paths stay here.
FILES = ("*.safetensors", "*.json", "README.md", "merges.txt")
KEPT_HERE = ("options.json",)


def check(name: str, *, private: bool) -> str:
    """The repository's full name, `owner/name`, before anything is trained.

    Rights inside an organisation are the hub's to know: it may still refuse the upload.

    Raises:
        InputError: There is no token that may write there, or the repository exists and others see it, where it should
            be private.
    """
    repository = _full_name(name)
    is_private = _is_private(repository)
    if private and is_private is False:
        raise _public_error(repository)
    return repository


def _full_name(name: str) -> str:
    """`owner/name`; raises InputError where the token's owner may not write there."""
    user = _request(name, lambda api: api.whoami())
    owner, slash, repository = name.partition("/")
    if not slash:
        return f"{user['name']}/{name}"
    organisations = [organisation["name"] for organisation in user.get("orgs", [])]
    if owner != user["name"] and owner not in organisations:
        raise InputError(
            f"--push-to-hub: {name}: HF_TOKEN is {user['name']}'s, who is no member of {owner}; "
            f"give {user['name']}/{repository}"
        )
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise InputError(f"--push-to-hub: {name}: HF_TOKEN may only read; make one that may write")
    return name


def push(folder: Path, name: str, *, private: bool, say: Callable[[str], None]) -> str:
    """Uploads the folder and returns its address. What an interrupted upload has sent is not sent again.

    Nothing is uploaded as private before the hub has said that the repository is.

    Raises InputError in one line; the folder stays as it is, so the same command resumes the upload.
    """
    repository = check(name, private=private)
    url = str(_request(repository, lambda api: api.create_repo(repository, private=private, exist_ok=True)))
    # An organisation may make its repositories public whatever was asked for.
    if private:
        is_private = _is_private(repository)
        if is_private is None:
            raise InputError(f"--push-to-hub: {repository}: the hub does not say if it is private; try again later")
        if not is_private:
            raise _public_error(repository)
    _request(
        repository,
        lambda api: api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            ignore_patterns=[*KEPT_HERE, "*/*"],
            commit_message="Upload of tmsearch",
        ),
        f"; {folder} is kept, the same command resumes the upload",
    )
    say(f"{url}: uploaded{_visibility(repository, private)}")
    return url


def _visibility(repository: str, private: bool) -> str:
    """Who sees the upload, as the hub says after it."""
    is_private = _is_private(repository)
    if is_private is None:
        return "; the hub does not say who sees it: look at its page"
    if is_private:
        return ", private" if private else "; the repository is private as it was: its settings can make it public"
    return "; it was made PUBLIC meanwhile: everybody sees it" if private else ""


def _is_private(repository: str) -> bool | None:
    """Whether the repository is private, as the hub says; None where there is no such repository."""

    def ask(api: Any) -> bool | None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return api.model_info(repository, timeout=REQUEST_TIMEOUT).private is True
        except RepositoryNotFoundError:
            return None

    answer: bool | None = _request(repository, ask)
    return answer


def _public_error(repository: str) -> InputError:
    return InputError(
        f"--push-to-hub: {repository}: is public there: everybody would see the model; make it private in its "
        "settings, use another name, or say --public"
    )


def _request(name: str, call: Callable[[Any], Any], advice: str = "") -> Any:
    """The hub's answer to the token in the environment; raises InputError, in one line of our own, for any refusal."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise InputError(f"--push-to-hub: {name}: HF_TOKEN is not set; put a token that may write into the environment")
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return call(HfApi(token=token))
    except Exception as error:  # the transport's own classes, the hub's, and the disk's
        # A library's message may quote headers, and with them the token.
        raise InputError(f"--push-to-hub: {name}: {_reason(error)}{advice}") from None


def _status(error: BaseException | None) -> int:
    """The HTTP status behind an error, 0 for none: the upload of a large file wraps it in an error of its own."""
    while error is not None:
        status = int(getattr(getattr(error, "response", None), "status_code", 0))
        if status:
            return status
        error = error.__cause__
    return 0


def _reason(error: BaseException) -> str:
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    status = _status(error)
    by_status = {
        401: f"{host} does not accept HF_TOKEN (401); set a valid one",
        403: f"{host} gives HF_TOKEN no right to write there (403); use a name of your own, or another token",
        404: f"{host} has no such owner or repository (404); check the name",
        409: f"{host} says that the name is taken by something else (409); use another name",
    }
    if status in by_status:
        return by_status[status]
    if isinstance(error, ValueError):
        return "not a repository name, as in owner/name; use letters, digits, dash, dot and underscore"
    if "Offline" in type(error).__name__:
        return "the hub is switched off (HF_HUB_OFFLINE is set); unset it"
    return f"{host} answered {status}; try again later" if status else f"{host} cannot be reached; check the network"
