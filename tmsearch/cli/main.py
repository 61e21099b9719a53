"""The program `tmsearch`: run one command and turn its errors into one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from search.errors import RunError, UserError, without_passwords
from search.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from tmsearch.cli.view import terminal
from tmsearch.errors import InputError, machine_problem
from tmsearch.notices.target import DESKTOP

NOTIFY = "--notify"
_HIDDEN_WORDS = "TMSEARCH_HIDDEN_WORDS"  # in the environment of a second start: JSON of word by position


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own; returns one of search.exit_codes."""
    from tmsearch.cli.parser import parse

    # The supervisor's matrices are small: a second thread of numpy's makes them slower (200 configurations: 0.10 s
    # a draw with one thread, 0.14 s with two, 2026-11-25) and takes cores from the training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _open_closed_streams()
    if argv is None:
        argv = _with_hidden_passwords(sys.argv[1:])
        terminal.replace_unprintable()
    try:
        arguments = parse(argv)
        exit_code = arguments.command(arguments)
        sys.stdout.flush()
        return int(exit_code)
    except (UserError, InputError) as error:
        _print_error(error)
        return BAD_INPUT
    except RunError as error:
        _print_error(error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # before OSError, its base
        # The reader (`| head`) has closed the pipe. Python flushes once more at exit: send that to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (OSError, MemoryError, RuntimeError) as error:
        problem = machine_problem(error)
        if problem is None:
            raise
        print(f"tmsearch: {problem}", file=sys.stderr)
        return FAILED


def _open_closed_streams() -> None:
    """Lets output go nowhere where a caller closed it (`>&-`), as a daemon's may: Python has no stream for it then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _with_hidden_passwords(words: Sequence[str]) -> Sequence[str]:
    """The command's words, after a new start without passwords and webhooks: everybody can read a command line.

    The words that hold one move to the environment, which only this user can read, and come back from there.
    """
    moved = os.environ.pop(_HIDDEN_WORDS, None)
    if moved is not None:
        hidden = json.loads(moved)
        return [hidden.get(str(position), word) for position, word in enumerate(words)]
    shown = list(words)
    hidden = {}
    for position, word in enumerate(words):
        shown[position] = without_passwords(word)
        option, _, value = word.partition("=")
        if option == NOTIFY and value:
            shown[position] = f"{NOTIFY}=***"
        elif position and words[position - 1] == NOTIFY and word != DESKTOP:
            shown[position] = "***"
        if shown[position] != word:
            hidden[position] = word
    if hidden:
        os.environ[_HIDDEN_WORDS] = json.dumps(hidden)
        start = sys.orig_argv[: len(sys.orig_argv) - len(words)]
        os.execv(sys.executable, [*start, *shown])
    return words


def _print_error(error: Exception) -> None:
    print(f"tmsearch: {without_passwords(str(error))}", file=sys.stderr)
