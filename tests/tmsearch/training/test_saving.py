"""When a checkpoint is worth its time: figures of large-v3 on one large GPU, and a model of rates."""

import random

import pytest

from tmsearch.training import saving
from tmsearch.training.saving import Rates

LARGE = 18_520_000_000  # bytes: weights and two moments of large-v3 in float32
RUNGS = (100, 200, 400, 800)
GPU = Rates(is_beside=True)


@pytest.mark.parametrize("step_seconds", [0.085, 0.147])
def test_large_v3_is_saved_where_going_back_is_dear(step_seconds):
    assert saving.saved_rungs(RUNGS, step_seconds, LARGE, GPU) == [400]


def test_slower_disks_save_less_and_adapters_always():
    assert saving.saved_rungs(RUNGS, 0.085, LARGE, Rates(True, write=0.2e9)) == []
    assert saving.saved_rungs(RUNGS, 0.085, LARGE, Rates(True, 6e9, 8e9, 5e10)) == [100, 200, 400]
    assert saving.saved_rungs(RUNGS, 0.085, 160_000_000, GPU) == [100, 200, 400]
    assert saving.saved_rungs((800,), 0.085, LARGE, GPU) == [], "nothing goes on from the last rung"


def test_a_cpu_loses_what_writing_takes():
    cpu = Rates(is_beside=False, copy=4e9, write=1e9)
    assert cpu.lost_seconds(LARGE) > GPU.lost_seconds(LARGE) + LARGE / 1e9
    assert not saving.is_worthwhile(100, 1.0, LARGE, cpu)  # 23 s of 100
    assert saving.is_worthwhile(1000, 1.0, LARGE, cpu)


def test_what_was_measured_takes_the_place_of_what_was_assumed():
    measured = GPU.measured(LARGE, copy_seconds=0.5, write_seconds=100.0)
    assert measured.copy_seconds(LARGE) == pytest.approx(0.5)
    assert measured.write_seconds(LARGE) == pytest.approx(100.0)
    assert saving.saved_rungs(RUNGS, 0.147, LARGE, measured) == []
    # A tiny one's time is that of its files: it says little of a large one's.
    tiny = GPU.measured(1000, copy_seconds=0.0, write_seconds=0.012)
    assert tiny.write_seconds(1000) < 0.02


def test_checkpoints_against_a_kill_are_rarer_where_they_are_dear():
    assert saving.is_due(61.0, 60.0, 100_000_000, GPU)
    assert not saving.is_due(59.0, 60.0, 100_000_000, GPU)
    assert not saving.is_due(380.0, 60.0, LARGE, GPU)
    assert saving.is_due(400.0, 60.0, LARGE, GPU)


@pytest.mark.parametrize("seed", range(30))
def test_a_trials_checkpoints_cost_at_most_a_twentieth_of_its_training(seed):
    """Trainings of any speed on any disk, step by step: what checkpoints take from them, of what they take."""
    chance = random.Random(seed)
    step_seconds = 10 ** chance.uniform(-2, 1)
    size = round(10 ** chance.uniform(6, 10.5))
    is_beside = chance.random() < 0.5
    rates = Rates(is_beside, write=10 ** chance.uniform(8, 10), read=2e9, copy=10 ** chance.uniform(9, 10.5))
    lost = 0.0
    saved = 0
    for step in range(1, 801):
        unsaved = step - saved
        is_safe = saving.is_due(unsaved * step_seconds, saving.SAVE_SECONDS, size, rates)
        is_rung = step in RUNGS[:-1] and saving.is_worthwhile(unsaved, step_seconds, size, rates)
        if is_safe or is_rung:
            lost += rates.lost_seconds(size)
            saved = step
    assert lost <= saving.SHARE * 800 * step_seconds
