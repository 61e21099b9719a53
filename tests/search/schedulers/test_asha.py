"""Every strategy and sampler on fake curves; Optuna's pruners decide as they do inside Optuna."""

import math

import optuna
import pytest

from search.process_id import ProcessId
from search.samplers import sampler as sampling
from search.schedulers.asha import OPTUNA_POLICIES, POLICIES
from search.schedulers.paired_test import paired_z
from search.schedulers.scheduler import SchedulerConfig
from search.simulation.memory_ledger import MemoryLedger
from search.space.budget import SAMPLERS
from search.space.distributions import Choice, FloatRange, IntRange

SPACE = {"x": FloatRange(0.0, 10.0), "n": IntRange(1, 8), "kind": Choice(("plain", "fancy"))}
RUNGS = (2, 4, 8)


def value(drawn, step):
    return (drawn["x"] - 3.0) ** 2 / 10 + 0.1 * (drawn["kind"] == "fancy") + 1.0 / step


def searched(scheduler_config, trials, sampler="random", seed=0, workers=1, fails=lambda drawn: False):
    """A search of toys with so many workers, who finish in the order in which they began."""
    ledger, me, running = MemoryLedger("toy", trials), ProcessId.current(), []
    while True:
        while len(running) < workers and (claim := ledger.claim(me, scheduler_config)) is not None:
            if claim.params is None:
                drawn = sampling.draw(
                    SPACE,
                    claim.history,
                    seed=seed,
                    number=claim.number,
                    last_rung=scheduler_config.rungs[-1],
                    sampler=sampler,
                )
                assert ledger.set_params(claim, drawn, drawn, "sampled")
            running.append(claim)
        if not running:
            return ledger.history()
        claim = running.pop(0)
        drawn = ledger.history()[claim.number].drawn
        if fails(drawn):
            ledger.fail(claim, "diverged", "toy")
        else:
            ledger.commit(claim, value(drawn, claim.last_step), {"train_seconds": 1.0}, scheduler_config)


@pytest.mark.parametrize("strategy", POLICIES)
@pytest.mark.parametrize("workers", [1, 5])
def test_every_strategy_ends_with_a_training_in_full(strategy, workers):
    history = searched(SchedulerConfig(RUNGS, strategy), 12, workers=workers)
    assert len(history) == 12
    assert {one.state for one in history} <= {"finished", "pruned"}
    full = [one for one in history if one.state == "finished"]
    assert full
    assert all(one.steps == 8 for one in full)
    if strategy == "none":
        assert len(full) == 12
    elif strategy in ("halving", "bracket"):
        assert sum(one.steps for one in history) < 0.8 * 12 * 8
        assert min(full, key=lambda one: one.value).number == min(history, key=lambda one: value(one.drawn, 8)).number


@pytest.mark.parametrize("strategy", POLICIES)
def test_where_everything_fails_a_search_still_ends(strategy):
    history = searched(SchedulerConfig(RUNGS, strategy), 6, fails=lambda drawn: True)
    assert [one.state for one in history] == ["failed"] * 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_inside_and_repeats(sampler):
    one, other = (searched(SchedulerConfig(RUNGS, "halving"), 14, sampler, seed=3, workers=2) for _ in range(2))
    assert [each.drawn for each in one] == [each.drawn for each in other]
    for each in one:
        assert 0.0 <= each.drawn["x"] <= 10.0
        assert each.drawn["n"] in range(1, 9)
        assert each.drawn["kind"] in ("plain", "fancy")
    assert len({str(each.drawn) for each in one}) > 10


def test_guidance_finds_the_minimum():
    best = {
        sampler: [
            min(each.value for each in searched(SchedulerConfig(RUNGS, "none"), 20, sampler, seed)) for seed in range(5)
        ]
        for sampler in ("random", "guided")
    }
    assert max(best["guided"]) < 0.14
    assert sum(best["guided"]) < sum(best["random"])


def test_guidance_learns_from_what_fails():
    history = searched(SchedulerConfig(RUNGS, "none"), 20, "guided", fails=lambda drawn: drawn["x"] > 4.0)
    assert sum(one.state == "failed" for one in history[8:]) < sum(one.state == "failed" for one in history[:8])


@pytest.mark.parametrize("name", OPTUNA_POLICIES)
def test_optunas_pruners_decide_as_inside_optuna(name):
    from search.schedulers import optuna_pruners

    scheduler_config = SchedulerConfig((1, 2, 4, 8), name, 2)
    for seed in range(5):
        ours = searched(scheduler_config, 20, seed=seed)
        drawn = iter([one.drawn for one in ours])

        def objective(trial, drawn=drawn):
            mine = next(drawn)
            for step in scheduler_config.rungs:
                trial.report(value(mine, step), step)
                if step < scheduler_config.rungs[-1] and trial.should_prune():
                    raise optuna.TrialPruned
            return value(mine, scheduler_config.rungs[-1])

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        theirs = optuna.create_study(pruner=optuna_pruners.pruner(name, scheduler_config), study_name="study")
        theirs.optimize(objective, n_trials=20)
        assert [one.curve for one in ours] == [trial.intermediate_values for trial in theirs.trials]
        assert any(one.state == "pruned" for one in ours)


def test_paired_differences_count_in_standard_errors():
    assert paired_z([1, 0, 2], [1, 0, 2]) == 0.0
    assert paired_z([1, 0, 2], [2, 1, 3]) == math.inf
    # Differences 1, 0, 0, 1: mean .5, deviation .577, four clips.
    assert paired_z([0, 0, 0, 0], [1, 0, 0, 1]) == pytest.approx(0.5 / (0.57735 / 2), rel=1e-4)
    assert paired_z([1, 0, 0, 1], [0, 0, 0, 0]) < -1.7
