"""The benchmarks run: what they measure is for a quiet machine, not for a test."""

import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

from tests.bench import traffic
from tests.bench.gpu_player.rates import DEVICES, with_measured
from tests.support import toy_whisper
from tmsearch.model.cost import LABEL_TOKENS
from tmsearch.model.whisper import describe

ROOT = Path(__file__).parents[2]
# Put in front of a program: what a GPU machine lacks is not found, nor is tmsearch, but where the program looks for it.
BARE_MACHINE = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

LACKING = {lacking!r}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else super().find_spec(name, path, target)

sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "tmsearch").is_dir()]
finders = [Without if finder is PathFinder else finder for finder in sys.meta_path]
sys.meta_path[:] = [finder for finder in finders if "editable" not in repr(finder)]
"""
NEEDED = {"torch", "transformers", "peft", "tensorboard"}  # and what these need
SHARED = {"numpy", "packaging", "pyyaml", "safetensors", "huggingface_hub", "fsspec", "jinja2", "rich"}  # with those
IMPORTED_AS = {"whisper-normalizer": "whisper_normalizer", "optuna-dashboard": "optuna_dashboard"}


def lacking():
    """Everything else that pyproject.toml says tmsearch needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[>=<\[]", requirement)[0] for requirement in project["dependencies"]}
    assert {"optuna", "datasets", "evaluate", "jiwer", "sqlalchemy", "soundfile"} <= names
    return {IMPORTED_AS.get(name, name) for name in names - NEEDED - SHARED}


def test_the_gpu_benchmark_starts_as_documented_on_a_machine_that_lacks_everything_else(tmp_path):
    """Training, checkpoint and evaluation by train(), and a peer; the whole table is for a machine with a GPU."""
    (tmp_path / "sitecustomize.py").write_text(BARE_MACHINE.format(lacking=lacking()))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    wanted = ("tmsearch, 2 to 11 s, low memory", "best common")
    command = [sys.executable, "tests/bench/gpu.py", "--shapes", "toy", *[f"--only={name}" for name in wanted]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert torch.__version__ in lines[0]
    rates = [word.removeprefix("--measured=") for word in lines[1].replace("--measured ", "--measured=").split()[1:]]
    assert with_measured(DEVICES["H200"], rates) != DEVICES["H200"], "gpu_model.py takes them as they are printed"
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| ")]
    assert [row[1] for row in cells] == ["recipe", *wanted]
    assert {len(row) for row in cells} == {11}
    ours, common = cells[1:]
    assert ours[2] == "1", "clips a forward pass"
    assert ours[7].endswith(" s"), "a checkpoint was written and waited for"
    assert common[7] == "none"
    assert not list(tmp_path.glob("tmsearch-gpu-*")), "its checkpoints are gone"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/bench"))
    return importlib.import_module("gpu")


def test_a_row_of_the_gpu_benchmark_fails_alone_and_the_compiler_comes_last(gpu, monkeypatch, capsys, tmp_path):
    done = gpu.Measured(step=0.1, evaluation=2.0, checkpoint=3.0, memory=0, micro_batch=4, audio_seconds=60.0)

    def fails():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    def hangs():
        time.sleep(30)

    bench = gpu.Bench(gpu.TOY, torch.device("cpu"), 2, 2, 1, 1, tmp_path)
    names = list(gpu.rows(bench, toy=True))
    assert "compiled" in names[-1]
    assert not any("compiled" in name for name in names[:-1])
    monkeypatch.setattr(gpu, "rows", lambda bench, toy: {"bad": fails, "good": lambda: done})
    monkeypatch.setattr(gpu, "measured_rates", lambda device, seconds: {"peak": 1.0})
    gpu.run(bench, True, None, time.perf_counter() + 1000)
    bad, good = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| bad", "| good"))]
    assert "failed: OutOfMemoryError: CUDA out of memory." in bad
    assert "100 ms" in good
    assert "100 s |" in good, "800 steps, and four times an evaluation and a checkpoint"
    gpu.run(bench, True, ["good"], time.perf_counter())
    assert "| good | left out: the time is up |" in capsys.readouterr().out
    assert "failed: TimeIsUpError" in gpu.guarded(hangs, 1.0)


def test_what_is_moved_grows_with_what_is_trained_and_encoded(tmp_path):
    info = describe(str(toy_whisper.whisper_folder(tmp_path, toy_whisper.Shape(d_model=64, ffn=256))))

    def moved(seconds=2.0, **knobs):
        return traffic.bytes_per_step(info, toy_whisper.config(tmp_path, **knobs), LABEL_TOKENS, seconds)

    assert moved() > moved(seconds=1.0) > 4 * traffic.UPDATE_MOVES * info.parameters
    assert moved(low_memory=True) == pytest.approx(moved() / 2, rel=1e-6)
    assert moved(freeze_encoder=True) < moved()


def test_the_copy_rate_is_one_that_a_computer_has():
    assert 1e8 < traffic.copy_rate(1, seconds=0.02) < 1e14
