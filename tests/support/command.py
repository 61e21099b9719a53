"""The command line as a person runs it: a process, its two streams, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPACE = """
study: small
data: {dataset: demo, validation: 8, test: 6}
budget: {max_steps: 6, rungs: [2, 4, 6]}
train: {batch_size: 4, model: demo/nano, window_share: 0, clip_times: 0}
search:
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  normalize_audio: [true, false]
start:
  - {learning_rate: 1e-3}
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    # What would change what is printed is not taken from whoever runs the tests.
    excluded = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    variables = {
        key: value
        for key, value in os.environ.items()
        if (key == "TMSEARCH_DEVICE" or not key.startswith("TMSEARCH")) and key not in excluded
    }
    # The log-mels of the demo are made once for all tests of a session.
    return {**variables, "PYTHONPATH": str(ROOT), "TMSEARCH_CACHE": str(folder.parent / "cache"), **more}


def tmsearch(folder: Path, *words: str, timeout: float = 250, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tmsearch", *words],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def children_seconds() -> float:
    """Of a processor, by the processes that were started and have ended: other work on the machine does not count."""
    times = os.times()
    return times.children_user + times.children_system


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tmsearch", *words],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def status(folder: Path, study: str = "small", *words: str) -> dict:
    done = tmsearch(folder, "status", study, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcomes(folder: Path, study: str = "small") -> list[tuple]:
    """The configurations of a study, without times and workers."""
    keys = ("number", "state", "params", "steps", "wer", "wer_raw", "cer", "reason")
    return [tuple(configuration[key] for key in keys) for configuration in status(folder, study)["configurations"]]
