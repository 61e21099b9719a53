"""Shell completion: the script that a shell reads, and the answers to what it asks (argcomplete's protocol)."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterator

import argcomplete
from argcomplete.completers import ChoicesCompleter, FilesCompleter
from argcomplete.shell_integration import shellcode

DEFAULT_STORAGE = "sqlite:///studies/tmsearch.db"
YAML = ("yaml", "yml")
# Where nothing on this machine could be meant: numbers, names yet to be made.
UNKNOWN = ("N", "K", "NUMBER", "TIME", "SECONDS", "GB", "CODE", "NAME", "URL", "KEY=VALUE", "KNOB=VALUE")


def completion(arguments: argparse.Namespace) -> int:
    """Print the script for a shell."""
    print(shellcode(["tmsearch"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process."""
    for action in each_action(parser):
        completer = _completer(action)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def each_action(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the program and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from each_action(command)


def _completer(action: argparse.Action) -> object | None:
    """None: argcomplete's own way, which is choices, else files."""
    if action.choices is not None:
        return None
    if action.metavar == "STUDY":
        return studies
    if action.dest == "about":
        from tmsearch.cli.parser import COMMANDS  # which imports this module to complete

        return ChoicesCompleter({name: what for name, (what, *_) in COMMANDS.items()})
    if action.dest in ("space", "recipe"):
        return FilesCompleter(YAML)
    return nothing if action.metavar in UNKNOWN else None


def nothing(
    prefix: str, action: argparse.Action, parser: argparse.ArgumentParser, parsed_args: argparse.Namespace
) -> list[str]:
    """Not even files."""
    return []


def studies(
    prefix: str, action: argparse.Action, parser: argparse.ArgumentParser, parsed_args: argparse.Namespace
) -> list[str]:
    """The studies of the storage; none where it is not there or does not answer: a shell must not wait, nor be told.

    SQLite's file is asked without SQLAlchemy, whose import alone takes as long as a person will wait.
    """
    url = getattr(parsed_args, "storage", None) or os.environ.get("TMSEARCH_STORAGE") or DEFAULT_STORAGE
    try:
        names = _of_file(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else _of_server(url)
    except Exception:  # whatever it is, an empty line of completions is the answer
        return []
    return [name for name in names if name.startswith(prefix)]


def _of_file(path: str) -> list[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2) as connection:
        return [str(row[0]) for row in connection.execute("SELECT name FROM tmsearch_study ORDER BY name")]


def _of_server(url: str) -> list[str]:
    from search import study
    from search.storage.database import Storage, open_storage

    patient = open_storage(url)
    return study.names(Storage(patient.url.update_query_dict({"connect_timeout": "1"})))
