"""The benchmarks run: what they measure is for a quiet machine, not for a test."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONLY_THERE = """
import runpy, sys
for lacking in ("datasets", "evaluate", "jiwer", "optuna", "soundfile", "soxr", "pyloudnorm", "sqlalchemy"):
    sys.modules[lacking] = None  # as if it were not installed
sys.path[:0] = [{root!r}, {bench!r}]
sys.argv = ["gpu.py", "--shapes", "toy", "--only", {row!r}]
runpy.run_path({bench!r} + "/gpu.py", run_name="__main__")
"""


def printed(row):
    bench = str(ROOT / "tests/bench")
    code = ONLY_THERE.format(root=str(ROOT), bench=bench, row=row)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_gpu_benchmark_needs_nothing_that_a_gpu_machine_lacks():
    for row in ("tmsearch, low memory", "best common"):
        assert any(line.startswith(row) for line in printed(row))
