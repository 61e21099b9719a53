"""A finished model folder as a repository of the Hugging Face hub: asked for by name, private unless it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tmsearch.errors import InputError

# What a user of the model needs. Clips' texts, TensorBoard events and options with this machine's paths stay here.
FILES = ("*.safetensors", "*.json", "README.md", "merges.txt")
KEPT_HERE = ("options.json",)
PATIENCE = 10.0  # seconds, for a look-up


def check(name: str) -> str:
    """The repository's whole name; raises InputError without a token that may write there, before anything is made.

    Rights inside an organisation are the hub's to know: it may still refuse at the upload.
    """
    who = _asked(name, lambda api: api.whoami())
    owner, slash, last = name.partition("/")
    if not slash:
        return f"{who['name']}/{name}"
    writes = [one["name"] for one in who.get("orgs", [])]
    if owner != who["name"] and owner not in writes:
        raise InputError(
            f"--push-to-hub: {name}: HF_TOKEN is {who['name']}'s, who has no part in {owner}; give {who['name']}/{last}"
        )
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise InputError(f"--push-to-hub: {name}: HF_TOKEN may only read; make one that may write")
    return name


def push(folder: Path, name: str, *, private: bool, say: Callable[[str], None]) -> str:
    """Upload the folder and give its address. What an interrupted one has uploaded is not sent again.

    Raises InputError in one line; the folder stays as it is, so the same command again goes on.
    """
    whole = check(name)
    made = _asked(whole, lambda api: api.create_repo(whole, private=private, exist_ok=True))
    _asked(
        whole,
        lambda api: api.upload_folder(
            repo_id=whole,
            folder_path=folder,
            allow_patterns=list(FILES),
            ignore_patterns=[*KEPT_HERE, "*/*"],
            commit_message="Upload of tmsearch",
        ),
        f"; {folder} is kept, the same command goes on",
    )
    say(f"{made}: uploaded{', private' if private else ''}")
    return str(made)


def _asked(name: str, call: Callable[[Any], Any], more: str = "") -> Any:
    """What the hub answers to the token in the environment; every refusal in one line of our own words."""
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
        raise InputError(f"--push-to-hub: {name}: {_explained(error)}{more}") from None


def _status(error: BaseException | None) -> int:
    """Of the answer behind it: the upload of a large file wraps it in an error of its own."""
    while error is not None:
        status = int(getattr(getattr(error, "response", None), "status_code", 0))
        if status:
            return status
        error = error.__cause__
    return 0


def _explained(error: BaseException) -> str:
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    status = _status(error)
    if status == 401:
        return f"{host} does not accept HF_TOKEN (401); set a valid one"
    if status == 403:
        return f"{host} gives HF_TOKEN no right to write there (403); take a name of your own, or another token"
    if status == 404:
        return f"{host} knows no such owner or repository (404); check the name"
    if status == 409:
        return f"{host} says that it is taken by something else (409); take another name"
    if isinstance(error, ValueError):
        return "no name of a repository, as in owner/name; use letters, digits, dash, dot and underscore"
    if "Offline" in type(error).__name__:
        return "the hub is not asked (HF_HUB_OFFLINE is set); unset it"
    return f"{host} answered {status}; try again later" if status else f"{host} cannot be reached; check the network"
