"""The training process's own reading: what is no job is refused in one line, and the process ends."""

import json
import subprocess
import sys

import pytest

SEGMENT = {"job": "segment", "number": 0, "token": 1, "params": {}, "first_step": 0, "last_step": 2, "seed": 0}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\x00 garbage\n", "not JSON"),
        (b'{"job": "\xff"}\n', "not UTF-8"),
        (b"[1]\n", "not a JSON object"),
        (b"[" * 100_000 + b"]" * 100_000 + b"\n", "nested too deep"),
        (b'{"job": "check", "data": {"share": NaN}, "candidates": [], "measure": false}\n', "NaN or infinity"),
        (b'{"job": "dance"}\n', "unknown job"),
        (json.dumps({**SEGMENT, "folder": "x"}).encode() + b"\n", "no 'facts'"),
        (json.dumps({**SEGMENT, "folder": 1, "facts": {}}).encode() + b"\n", "'folder' is not a string"),
    ],
    ids=["garbage", "not UTF-8", "no object", "deep", "NaN", "unknown job", "missing key", "wrong type"],
)
def test_what_is_no_job_is_refused_and_ends_the_process(line, problem):
    command = [sys.executable, "-m", "tmsearch.trial"]
    done = subprocess.run(command, input=line, capture_output=True, timeout=60, check=True)
    (answer,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert answer["event"] == "failure"
    assert answer["failure"] == "bug"
    assert problem in answer["reason"]
    assert len(answer["reason"]) < 500
