"""What the plan says of the disk: twenty configurations of large-v3 fit, by default."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.execution import checkpoint_gc
from search.space.budget import Budget
from tmsearch.cli.services.disk_plan import disk_line, disk_plan

LARGE = 18_520_000_000  # bytes
BUDGET = Budget(max_steps=800, rungs=(100, 200, 400, 800))


@pytest.fixture
def large_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2e12))


def test_twenty_paused_configurations_of_large_v3_fit_100_gb(tmp_path, large_disk):
    plan = disk_plan(BUDGET, tmp_path / "not" / "there", 20, LARGE, 0.1, is_gpu=True)
    assert plan.kept == 5
    assert plan.bytes <= 100e9
    assert disk_line(plan, BUDGET, 20) == (
        "disk: 18.52 GB a checkpoint, saved at 400 (not at 100, 200: sooner trained again); at most 92.6 GB for paused "
        "configurations, 5 of 20: the others train again if promoted (budget.disk_gb), and one more while a worker "
        "trains"
    )


def test_a_budget_or_a_small_disk_is_what_counts(tmp_path, monkeypatch, large_disk):
    assert checkpoint_gc.disk_budget(tmp_path, 200.0) == 200e9
    assert checkpoint_gc.disk_budget(tmp_path, 0.0) == 0
    assert checkpoint_gc.disk_budget(Path("not/there"), None) == 100e9
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=50e9))
    assert checkpoint_gc.disk_budget(tmp_path, None, taken=30_000_000_000) == 40e9


def test_what_is_not_worth_saving_takes_nothing(tmp_path, large_disk):
    plan = disk_plan(BUDGET, tmp_path, 20, LARGE, 0.1, is_gpu=False)
    assert plan.bytes == 0
    assert disk_line(plan, BUDGET, 20).endswith("none is kept, since training again is sooner than saving")
    small = disk_plan(BUDGET, tmp_path, 20, 160_000_000, 0.1, is_gpu=True)
    assert "saved at 100, 200, 400; at most 3.2 GB" in disk_line(small, BUDGET, 20)
