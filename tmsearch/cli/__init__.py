"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from search.errors import RunError, UserError
from tmsearch.errors import InputError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 1 the run failed, 2 bad input, 130 interrupted."""
    from tmsearch.cli.parser import parse

    # The supervisor's matrices are small: a second thread of numpy's makes them slower (200 configurations: 0.10 s
    # a draw with one thread, 0.14 s with two, 2026-11-25) and takes cores from the training.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if argv is None:
        _conceal(sys.argv[1:])
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        code = arguments.command(arguments)
        sys.stdout.flush()
        return int(code)
    except (UserError, InputError) as error:
        return _said(str(error), BAD_INPUT)
    except RunError as error:
        return _said(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _conceal(words: Sequence[str]) -> None:
    """Start again without a storage URL that holds a password: everybody on the machine can read a command line."""
    secret = re.compile(r"(--storage=)?[a-z0-9+]+://[^/@]*:[^@]*@")
    found = next((place for place, word in enumerate(words) if secret.match(word)), None)
    if found is None:
        return
    url = words[found].removeprefix("--storage=")
    named = found > 0 and words[found - 1] == "--storage"
    if not named and url == words[found]:
        return  # no storage of ours
    os.environ["TMSEARCH_STORAGE"] = url
    rest = [*words[: found - 1 if named else found], *words[found + 1 :]]
    os.execv(sys.executable, [sys.executable, "-m", "tmsearch", *rest])


def _said(text: str, code: int) -> int:
    print(f"tmsearch: {text}", file=sys.stderr)
    return code
