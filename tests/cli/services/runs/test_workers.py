"""How many workers there are."""

from tmsearch.cli.services.runs.workers import WorkerPlan


def test_more_workers_than_gpus_are_told_what_will_happen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert WorkerPlan().count == 2
    assert WorkerPlan().shared_gpus() is None
    line = WorkerPlan(workers=5).shared_gpus()
    assert "--workers 5 with 2 GPUs: up to 3 workers share one" in line
    assert "1/3 of its memory" in line
    assert "--workers 2" in line
    assert WorkerPlan(workers=5, on="slurm").shared_gpus() is None, "its machines are not this one"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert WorkerPlan(workers=5).shared_gpus() is None
