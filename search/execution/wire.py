"""Lines of JSON between two processes, one object a line: written and read strictly, in bounded memory."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from search.errors import EngineError

MAX_LINE_BYTES = 64 * 2**20
MAX_DEPTH = 50  # of nested arrays and objects; a study's facts take 4
_SHOWN_BYTES = 80  # of an unreadable line, in the error
_TOO_LONG = f"longer than {MAX_LINE_BYTES // 2**20} MiB"


class MessageError(EngineError):
    """A message that cannot be sent or read: what is wrong with it, and how it starts."""

    def __init__(self, problem: str, text: bytes | str = b"") -> None:
        start = text[:_SHOWN_BYTES]
        shown = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
        super().__init__(f"{problem}: {shown!r}" if shown else problem)


def encode(message: Mapping[str, Any]) -> bytes:
    """The message as one line; raises MessageError where it is not plain finite JSON or too long."""
    problem = _problem_inside(message)
    if problem:
        raise MessageError(problem, reprlib.repr(message))
    try:
        line = json.dumps(message).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise MessageError(f"not JSON ({error})", reprlib.repr(message)) from None
    if len(line) > MAX_LINE_BYTES:
        raise MessageError(_TOO_LONG, line)
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The JSON object of one line; raises MessageError for anything else."""
    if len(line) > MAX_LINE_BYTES:
        raise MessageError(_TOO_LONG, line)
    try:
        message = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise MessageError("not UTF-8", line) from None
    except RecursionError:
        raise MessageError("nested too deep", line) from None
    except ValueError:
        raise MessageError("not JSON", line) from None
    if not isinstance(message, dict):
        raise MessageError("not a JSON object", line)
    problem = _problem_inside(message)
    if problem:
        raise MessageError(problem, line)
    return message


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Complete lines of a stream. A longer one than MAX_LINE_BYTES is cut there, so that `decode` refuses it.

    What follows the last line end is the beginning of a line whose writer was killed, and is dropped.
    """
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            return
        yield line
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)


def _problem_inside(message: Mapping[str, Any]) -> str | None:
    """What is wrong with the values anywhere within the message: level by level, without recursion."""
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, float) and not math.isfinite(value):
                return "NaN or infinity"
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list | tuple):
                inner += value
        if not inner:
            return None
        level = inner
    return "nested too deep"
