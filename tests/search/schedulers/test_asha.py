"""Every strategy and sampler on made-up curves."""

import pytest

from search.process_id import ProcessId
from search.samplers import sampler as sampling
from search.schedulers.asha import POLICIES
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
    ledger, worker, running = MemoryLedger("toy", trials), ProcessId.current(), []
    while True:
        while len(running) < workers and (claim := ledger.claim(worker, scheduler_config)) is not None:
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
    assert {trial.state for trial in history} <= {"finished", "pruned"}
    full = [trial for trial in history if trial.state == "finished"]
    assert full
    assert all(trial.steps == 8 for trial in full)
    if strategy == "none":
        assert len(full) == 12
    elif strategy in ("halving", "bracket"):
        assert sum(trial.steps for trial in history) < 0.8 * 12 * 8
        best = min(full, key=lambda trial: trial.value)
        assert best.number == min(history, key=lambda trial: value(trial.drawn, 8)).number


@pytest.mark.parametrize("strategy", POLICIES)
def test_where_everything_fails_a_search_still_ends(strategy):
    history = searched(SchedulerConfig(RUNGS, strategy), 6, fails=lambda drawn: True)
    assert [trial.state for trial in history] == ["failed"] * 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_inside_and_repeats(sampler):
    first, second = (searched(SchedulerConfig(RUNGS, "halving"), 14, sampler, seed=3, workers=2) for _ in range(2))
    assert [trial.drawn for trial in first] == [trial.drawn for trial in second]
    for trial in first:
        assert 0.0 <= trial.drawn["x"] <= 10.0
        assert trial.drawn["n"] in range(1, 9)
        assert trial.drawn["kind"] in ("plain", "fancy")
    assert len({str(trial.drawn) for trial in first}) > 10


def test_guidance_finds_the_minimum():
    best = {"random": [], "guided": []}
    for sampler, values in best.items():
        for seed in range(5):
            history = searched(SchedulerConfig(RUNGS, "none"), 20, sampler, seed)
            values.append(min(trial.value for trial in history))
    assert max(best["guided"]) < 0.14
    assert sum(best["guided"]) < sum(best["random"])


def test_guidance_learns_from_what_fails():
    history = searched(SchedulerConfig(RUNGS, "none"), 20, "guided", fails=lambda drawn: drawn["x"] > 4.0)
    assert sum(trial.state == "failed" for trial in history[8:]) < sum(trial.state == "failed" for trial in history[:8])
