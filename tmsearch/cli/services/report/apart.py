"""A function called in a process of its own, which gives back what memory and libraries it took."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, Protocol, TypeVar

from search.errors import RunError
from tmsearch import job_server

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Call(Protocol):
    """Calls a function of a module with arguments that can be pickled."""

    def __call__(
        self, function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result: ...


def call_here(function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call it in this process."""
    return function(*args, **kwargs)


def call_apart(
    function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call it in a process of its own, which ends with this one; raises what it raises.

    Raises:
        RunError: The process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")  # a fork would keep this process's memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args, kwargs), daemon=True)
    process.start()
    sender.close()
    try:
        result: Result | BaseException = receiver.recv()
    except EOFError:
        process.join()
        raise RunError(
            f"the process that collects a report's figures ended with exit code {process.exitcode}, "
            "negative for a signal: was memory used up?"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, BaseException):
        raise result
    return result


def _answer(sender: Connection, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits answers a Ctrl-C, and ends this one
    job_server.die_with_parent()
    try:
        result = function(*args, **kwargs)
    except Exception as error:
        result = error
    sender.send(result)
