"""The training process, `python -m tmsearch.trial`: jobs from standard input, answers to standard output."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import BinaryIO

from search.execution import messages, wire
from search.execution.messages import (
    CheckJob,
    Event,
    Failure,
    Job,
    JobAnswer,
    SegmentStopped,
    StopRequest,
    TestJob,
)
from search.execution.wire import MessageError
from tmsearch import job_server
from tmsearch.errors import InputError
from tmsearch.trial import check, jobs
from tmsearch.trial.workbench import Workbench


def answer(bench: Workbench, job: Job, report: Callable[[Event], None], stop: Callable[[], bool]) -> JobAnswer:
    """The job's last word, failures by class among them."""
    from tmsearch.training import micro_batch
    from tmsearch.training.state import DivergenceError
    from tmsearch.training.train import TrainingStoppedError

    try:
        if isinstance(job, CheckJob):
            return check.check(bench, job)
        if isinstance(job, TestJob):
            return jobs.test(bench, job)
        return jobs.segment(bench, job, report, stop)
    except TrainingStoppedError as stopped:
        return SegmentStopped(stopped.step)
    except DivergenceError as diverged:
        return Failure("diverged", str(diverged))
    except InputError as error:
        return Failure("input", str(error))
    except OSError as error:
        traceback.print_exc()
        return Failure("disk", f"{error.strerror}: {error.filename}")
    except Exception as error:
        if micro_batch.is_out_of_memory(error):
            return _out_of_memory(error)
        traceback.print_exc()
        return Failure("bug", f"{type(error).__name__}: {_first_line(error)}")


def _out_of_memory(error: BaseException) -> Failure:
    advice = "low_memory needs half, a smaller micro_batch_size or context_seconds less"
    return Failure("oom", f"out of memory: {_first_line(error)}; {advice}")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else ""


def requests(stream: BinaryIO, write: job_server.Write, stop: Callable[[], None]) -> Iterator[Job]:
    """Jobs of a stream; ends after a message that cannot be read, with a Failure."""
    for line in wire.read_lines(stream):
        try:
            message = messages.job_from_json(wire.decode(line))
        except MessageError as error:
            write(wire.encode(Failure("bug", f"a message of the supervisor cannot be read: {error}").to_json()))
            return
        if isinstance(message, StopRequest):
            stop()
        else:
            yield message


def _encoded(event: JobAnswer) -> bytes:
    try:
        return wire.encode(event.to_json())
    except MessageError as error:
        return wire.encode(Failure("bug", f"the answer cannot be sent: {error}").to_json())


def main() -> None:
    """Answer jobs from standard input until it closes."""
    bench = Workbench()

    def serve(job: Job, write: job_server.Write, stop: Callable[[], bool]) -> bytes:
        return _encoded(answer(bench, job, lambda event: write(wire.encode(event.to_json())), stop))

    job_server.serve(requests, serve)


if __name__ == "__main__":
    main()
