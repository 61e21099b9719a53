"""The training process, `python -m tmsearch.trial`: jobs from standard input, answers to standard output."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tmsearch import job_server
from tmsearch.errors import InputError
from tmsearch.job_server import Say
from tmsearch.trial import check, jobs
from tmsearch.trial.workbench import Bench


def answer(bench: Bench, job: Mapping[str, Any], say: Say, stop: Callable[[], bool]) -> Mapping[str, Any]:
    """The job's last word, failures by class among them."""
    from tmsearch.training import micro_batch
    from tmsearch.training.train import Diverged, Stopped

    try:
        if job["job"] == "check":
            return check.check(bench, job, say)
        if job["job"] == "test":
            return jobs.test(bench, job)
        return jobs.segment(bench, job, say, stop)
    except Stopped as stopped:
        return {"event": "stopped", "step": stopped.step}
    except Diverged as diverged:
        return {"event": "failure", "failure": "diverged", "reason": str(diverged)}
    except InputError as error:
        return {"event": "failure", "failure": "input", "reason": str(error)}
    except OSError as error:
        traceback.print_exc()
        return {"event": "failure", "failure": "disk", "reason": f"{error.strerror}: {error.filename}"}
    except Exception as error:
        if micro_batch.ran_out(error):
            return _out_of_memory(error)
        traceback.print_exc()
        said = str(error).splitlines()
        return {"event": "failure", "failure": "bug", "reason": f"{type(error).__name__}: {said[0] if said else ''}"}


def _out_of_memory(error: BaseException) -> Mapping[str, Any]:
    said = (str(error).splitlines() or [""])[0]
    reason = f"out of memory: {said}; low_memory needs half, a smaller micro_batch_size or context_seconds less"
    return {"event": "failure", "failure": "oom", "reason": reason}


def main() -> None:
    """Answer jobs from standard input until it closes."""
    bench = Bench()
    job_server.serve(lambda job, say, stop: answer(bench, job, say, stop))


if __name__ == "__main__":
    main()
