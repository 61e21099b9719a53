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
    FailureKind,
    Job,
    JobAnswer,
    SegmentStopped,
    StopRequest,
    TestJob,
)
from search.execution.wire import MessageError
from tmsearch import job_server
from tmsearch.errors import InputError, UnavailableError, describe_os_error, is_disk_problem, machine_problem
from tmsearch.formatting import first_line
from tmsearch.trial import check, jobs
from tmsearch.trial.workbench import Workbench


def answer(workbench: Workbench, job: Job, report: Callable[[Event], None], stop: Callable[[], bool]) -> JobAnswer:
    """Run a job and return its answer; whatever goes wrong becomes a Failure of its kind."""
    from tmsearch import devices
    from tmsearch.training.state import DivergenceError
    from tmsearch.training.train import TrainingStoppedError

    try:
        if isinstance(job, CheckJob):
            return check.check(workbench, job)
        if isinstance(job, TestJob):
            return jobs.run_test(workbench, job)
        return jobs.run_segment(workbench, job, report, stop)
    except TrainingStoppedError as error:
        return SegmentStopped(error.step)
    except DivergenceError as error:
        return Failure("diverged", str(error))
    except UnavailableError as error:
        return Failure("machine", str(error))
    except InputError as error:
        return Failure("input", str(error))
    except Exception as error:
        if devices.is_out_of_memory(error):
            return Failure("oom", f"out of memory: {first_line(error)}; {devices.MEMORY_ADVICE}")
        traceback.print_exc()
        return _failure(error)


def _failure(error: Exception) -> Failure:
    """The failure that an unexpected error is: of the disk, of this machine, or of the program."""
    problem = machine_problem(error)
    if isinstance(error, OSError) and (error.errno is not None or _is_network_failure(error)):
        kind: FailureKind = "disk" if is_disk_problem(error) else "machine"
        return Failure(kind, problem or describe_os_error(error))
    if problem is not None:
        return Failure("machine", problem)
    return Failure("bug", f"{type(error).__name__}: {first_line(error)}")


def _is_network_failure(error: OSError) -> bool:
    """By its name: those of requests have neither a number nor a base of their own."""
    return any(word in type(error).__name__ for word in ("Connection", "Timeout", "Offline"))


def read_jobs(stream: BinaryIO, write: job_server.Write, stop: Callable[[], None]) -> Iterator[Job]:
    """Jobs from a stream; after a message that cannot be read it writes a Failure and ends."""
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


def _encode_answer(event: JobAnswer) -> bytes:
    try:
        return wire.encode(event.to_json())
    except MessageError as error:
        return wire.encode(Failure("bug", f"the answer cannot be sent: {error}").to_json())


def main() -> None:
    """Answer jobs from standard input until it closes."""
    workbench = Workbench()

    def run(job: Job, write: job_server.Write, stop: Callable[[], bool]) -> bytes:
        return _encode_answer(answer(workbench, job, lambda event: write(wire.encode(event.to_json())), stop))

    job_server.serve(read_jobs, run, workbench.close)


if __name__ == "__main__":
    main()
