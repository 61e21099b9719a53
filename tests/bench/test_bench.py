"""The benchmarks run: what they measure is for a quiet machine, not for a test."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import traffic
from tests.support import toy_whisper
from tmsearch.model.cost import LABEL_TOKENS
from tmsearch.model.whisper import describe

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


def test_what_is_moved_grows_with_what_is_trained_and_encoded(tmp_path):
    info = describe(str(toy_whisper.whisper_folder(tmp_path, toy_whisper.Shape(d_model=64, ffn=256))))

    def moved(seconds=2.0, **knobs):
        return traffic.bytes_per_step(info, toy_whisper.config(tmp_path, **knobs), LABEL_TOKENS, seconds)

    assert moved() > moved(seconds=1.0) > 4 * traffic.UPDATE_MOVES * info.parameters
    assert moved(low_memory=True) == pytest.approx(moved() / 2, rel=1e-6)
    assert moved(freeze_encoder=True) < moved()


def test_the_copy_rate_is_one_that_a_computer_has():
    assert 1e8 < traffic.copy_rate(1, seconds=0.02) < 1e14
