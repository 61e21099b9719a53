"""Shell completion: the script that a shell reads, and the answers to what it asks (argcomplete's protocol)."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterable, Mapping

import argcomplete
from argcomplete.completers import BaseCompleter, FilesCompleter
from argcomplete.shell_integration import shellcode

from search.paths import DEFAULT_URL

FILES = ("FILE", "DIR", "LOG", "DATASET", "PATH_OR_SPACE", "MODEL")  # metavars; other values are numbers and new names
YAML = ("yaml", "yml")


def completion(arguments: argparse.Namespace) -> int:
    """Print the script for a shell."""
    print(shellcode(["tmsearch"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser, commands: Mapping[str, str]) -> None:
    """Answer the shell and end the process; `commands` says what each command does, by name."""
    argcomplete.autocomplete(parser, default_completer=_ValueCompleter(commands))


class _ValueCompleter(BaseCompleter):
    """Completes the value of an argument that has no fixed choices."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        self._commands = commands

    def __call__(
        self, *, prefix: str, action: argparse.Action, parser: argparse.ArgumentParser, parsed_args: argparse.Namespace
    ) -> Iterable[str]:
        if action.metavar == "STUDY":
            return study_names(parsed_args)
        if action.dest == "about":
            return self._commands
        if action.dest in ("space", "recipe"):
            return FilesCompleter(YAML)(prefix)
        return FilesCompleter()(prefix) if action.metavar in FILES else ()


def study_names(arguments: argparse.Namespace | None) -> list[str]:
    """The studies of the storage; none where it is missing or does not answer: a shell cannot show an error.

    SQLite is read without SQLAlchemy, whose import takes longer than a person will wait.
    """
    url = getattr(arguments, "storage", None) or os.environ.get("TMSEARCH_STORAGE") or DEFAULT_URL
    try:
        if url.startswith("sqlite:///"):
            return _names_in_file(url.removeprefix("sqlite:///"))
        return _names_on_server(url)
    except Exception:  # any failure at all completes to nothing
        return []


def _names_in_file(path: str) -> list[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2) as connection:
        return [str(row[0]) for row in connection.execute("SELECT name FROM tmsearch_study ORDER BY name")]


def _names_on_server(url: str) -> list[str]:
    from search import study
    from search.storage.database import Storage, open_storage

    storage_url = open_storage(url).url
    return study.names(Storage(storage_url.update_query_dict({"connect_timeout": "1"})))
