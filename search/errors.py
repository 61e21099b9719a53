"""Every error of the engine, by whose fault it is: a person's input, the run itself, or the database."""

import re

# A user's password in a URL, up to the last @, since it may hold some; a secret among parameters, however named.
_USER_PASSWORD = re.compile(r"(://)[^\s@/:]*:(?!\*\*\*@).*@", re.DOTALL)
_PARAMETER = re.compile(r"((?:^|[?&;\s'\"])\w*(?:passw\w*|pwd|secret\w*|token|_key)=)[^&\s]+", re.IGNORECASE)
LONGEST_NAME = 64  # characters of a study's name; which ones, space/parsing.py says


class EngineError(Exception):
    """Base of all errors that `search` raises."""


class UserError(EngineError):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""


class RunError(EngineError):
    """The run failed through no fault of its input: one line. The command exits with 1."""


class MachineError(RunError):
    """This machine cannot do it, as its disk is full or a limit reached; another may."""


class RepeatedDrawError(EngineError):
    """Another worker drew the same values meanwhile: draw again, from the history as it is now."""


class StorageUnavailableError(RunError):
    """The database did not answer, or it cancelled this transaction; the caller may try again."""


def first_line(error: BaseException) -> str:
    """The first line of the error's text without passwords; its class where it has none."""
    lines = str(error).strip().splitlines()
    return without_passwords(lines[0]) if lines else type(error).__name__


def typed_name(name: str) -> str:
    """A study's name as a person typed it, for an error: cut behind the longest legal one, on one line."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
    return short if short.isprintable() else ascii(short)[1:-1]


def without_passwords(text: str) -> str:
    """The text with *** in place of what may be a password in a URL."""
    return _PARAMETER.sub(r"\1***", _USER_PASSWORD.sub(r"\1***@", text))
