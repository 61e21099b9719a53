"""What the Python API raises: errors of a person's input and of a run, and a search that was interrupted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search.errors import RunError, UserError, without_passwords
from tmsearch import errors
from tmsearch.errors import TmsearchError, machine_problem

_OPTION = re.compile(r"(?<![\w-])(?:--set |-o |--([a-z][a-z-]*))")

if TYPE_CHECKING:
    from tmsearch.api.study import Study

__all__ = ["InputError", "RunFailedError", "StudyInterrupted", "TmsearchError", "one_line_errors"]


class _OneLine(Exception):
    """An error whose one line says all: a notebook shows no traceback of it."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook."""
        return [f"{type(self).__name__}: {self}"]


class InputError(_OneLine, errors.InputError, UserError):
    """A person's mistake, in the one line that the command prints: file, key and fix. Nothing was written."""


class RunFailedError(_OneLine, TmsearchError, RunError):
    """The run failed through no fault of its input, in one line; what was reached is kept."""


class StudyInterrupted(KeyboardInterrupt):  # as KeyboardInterrupt
    """The interrupt button, Ctrl-C or SIGTERM ended the work, and everything is kept: the same call continues.

    It is a KeyboardInterrupt, as `study.optimize` of Optuna raises it, so that the cells below do not run.

    Attributes:
        study: what was at work; None: a final training.
    """

    def __init__(self, message: str, study: Study | None = None) -> None:
        super().__init__(message)
        self.study = study

    def _render_traceback_(self) -> list[str]:
        """IPython's hook."""
        return [f"{type(self).__name__}: {self}"]


def as_arguments(message: str) -> str:
    """A message about options of the command line, about Python's arguments: `--set data.x` is data.x, `-o FILE` FILE.

    What stands between backticks is a command, and stays.
    """
    parts = message.split("`")
    parts[::2] = [_OPTION.sub(lambda option: (option[1] or "").replace("-", "_"), part) for part in parts[::2]]
    return "`".join(parts)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise what goes wrong within the block as one of this module's errors."""
    try:
        yield
    except (InputError, RunFailedError):
        raise
    except (UserError, errors.InputError) as error:
        raise InputError(as_arguments(without_passwords(str(error)))) from None
    except RunError as error:
        raise RunFailedError(without_passwords(str(error))) from None
    except (OSError, MemoryError, RuntimeError) as error:
        problem = machine_problem(error)
        if problem is None:
            raise
        raise RunFailedError(problem) from error
