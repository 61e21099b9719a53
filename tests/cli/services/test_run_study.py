"""How many workers there are, and what their processes find in their environment."""

import pytest

from tmsearch.cli.services import run_study
from tmsearch.cli.services.run_study import WorkerPlan


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


def test_more_workers_than_gpus_are_told_what_will_happen(two_gpus, monkeypatch):
    assert WorkerPlan().count == 2
    assert WorkerPlan().shared_gpus() is None
    line = WorkerPlan(workers=5).shared_gpus()
    assert "--workers 5 with 2 GPUs: up to 3 workers share one" in line
    assert "1/3 of its memory" in line
    assert "--workers 2" in line
    assert WorkerPlan(workers=5, on="slurm").shared_gpus() is None, "its machines are not this one"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert WorkerPlan(workers=5).shared_gpus() is None


def test_the_training_process_gets_an_allocator_for_changing_lengths_unless_told_otherwise(two_gpus, monkeypatch):
    assert run_study.torch_environment()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):  # its older name counts as well
        with monkeypatch.context() as patch:
            patch.setenv(name, "max_split_size_mb:512")
            assert "PYTORCH_ALLOC_CONF" not in run_study.torch_environment()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "PYTORCH_ALLOC_CONF" not in run_study.torch_environment()
