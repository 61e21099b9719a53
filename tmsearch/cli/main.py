"""The program `tmsearch`: run one command and turn its errors into one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from search.errors import RunError, UserError
from search.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from tmsearch.errors import InputError, machine_problem

_URL_WITH_PASSWORD = re.compile(r"(--storage=)?[a-z0-9+]+://[^/@]*:[^@]*@")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own; returns one of search.exit_codes."""
    from tmsearch.cli.parser import parse

    # The supervisor's matrices are small: a second thread of numpy's makes them slower (200 configurations: 0.10 s
    # a draw with one thread, 0.14 s with two, 2026-11-25) and takes cores from the training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if argv is None:
        argv = sys.argv[1:]
        _hide_password(argv)
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


def _hide_password(words: Sequence[str]) -> None:
    """Start again without a storage URL that holds a password: everybody on the machine can read a command line.

    The URL moves to the environment. Returns where there is no such URL.
    """
    urls = [position for position, word in enumerate(words) if _URL_WITH_PASSWORD.match(word)]
    if not urls:
        return
    position = urls[0]
    first_hidden = position
    url = words[position].removeprefix("--storage=")
    if url == words[position]:
        if position == 0 or words[position - 1] != "--storage":
            return  # not a storage of ours
        first_hidden = position - 1
    os.environ["TMSEARCH_STORAGE"] = url
    command = [sys.executable, "-m", "tmsearch", *words[:first_hidden], *words[position + 1 :]]
    os.execv(sys.executable, command)


def _print_error(error: Exception) -> None:
    print(f"tmsearch: {error}", file=sys.stderr)
