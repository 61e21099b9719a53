"""What a study still takes: an estimate held against recorded studies, in virtual time."""

import heapq
import statistics
from pathlib import Path

import pytest

from search.process_id import ProcessId
from search.records import Configuration, Rung
from search.schedulers import eta
from search.schedulers.scheduler import SchedulerConfig, seconds_to_finish
from search.simulation import benchmark_table
from search.simulation.simulator import Method, SimulatedSearch

DEMO = benchmark_table.read(Path(__file__).parents[3] / "studies" / "replay" / "demo.jsonl")


def looks(strategy, workers, seed, trials=20):
    """(estimate, what it really took from then on) after every result of a study."""
    search = SimulatedSearch(DEMO, Method("a", strategy, "quasi-random", trials=trials), seed, workers)
    me = ProcessId.current()
    now = 0.0
    running = []
    idle = workers
    estimates = []
    while True:
        while idle and (claim := search._claim(me)) is not None:
            heapq.heappush(running, (now + search._seconds(claim), claim.number, claim))
            idle -= 1
        if now:
            estimates.append((now, eta.seconds_left(search.scheduler_config, search.ledger.history(), trials, workers)))
        if not running:
            return [(estimate, now - at) for at, estimate in estimates]
        now, _, claim = heapq.heappop(running)
        idle += 1
        search._commit(claim)


@pytest.mark.parametrize("strategy", ["halving", "bracket", "none"])
@pytest.mark.parametrize("workers", [1, 4])
def test_an_estimate_is_within_a_factor_of_two_as_a_rule(strategy, workers):
    shares = []
    for seed in range(5):
        pairs = looks(strategy, workers, seed)
        assert pairs[-1] == (0.0, 0.0)
        early = [pair for pair in pairs if 0.3 * pairs[0][1] < pair[1] < 0.9 * pairs[0][1]]
        shares.append(statistics.median(estimate / real for estimate, real in early))
    assert 0.5 < statistics.median(shares) < 2.0, shares


def trial(number, state="paused", rungs=(), **more):
    curve = tuple(Rung(step, value, {"train_seconds": 10.0, "eval_seconds": 1.0}) for step, value in rungs)
    return Configuration(number, "sampled", {}, {}, state, rungs=curve, **more)


def test_nothing_is_said_before_there_is_a_result():
    scheduler_config = SchedulerConfig((10, 20, 40))
    assert eta.seconds_left(scheduler_config, [], 8) is None
    assert eta.seconds_left(scheduler_config, [trial(0, "running", target=10)], 8) is None


def test_a_running_segment_owes_what_is_left_of_it():
    scheduler_config = SchedulerConfig((10, 20, 40), "none")
    history = [trial(0, "running", [(10, 0.5), (20, 0.4)], target=40, progress={"step": 30})]
    assert eta.seconds_left(scheduler_config, history, 1) == pytest.approx(10 / 40 * (40 * 1.0 + 3 * 1.0))


def test_imported_trainings_owe_nothing():
    scheduler_config = SchedulerConfig((10, 20, 40), "none")
    ended = trial(0, "finished", [(10, 0.5), (20, 0.4), (40, 0.3)])
    imported = Configuration(1, "imported", None, {}, "pruned", rungs=(Rung(10, 0.1, {}),))
    assert eta.seconds_left(scheduler_config, [ended, imported], 1) == 0.0
    assert [summary.reached for summary in eta.rung_summaries(scheduler_config, [ended, imported])] == [1, 1, 1]


def test_standings_count_who_came_so_far_and_the_best():
    scheduler_config = SchedulerConfig((10, 20, 40))
    history = [trial(0, rungs=[(10, 0.5), (20, 0.4)]), trial(1, rungs=[(10, 0.3)]), trial(2, "running", target=10)]
    assert eta.rung_summaries(scheduler_config, history) == [
        eta.RungSummary(2, 0.3), eta.RungSummary(1, 0.4), eta.RungSummary(0, None)
    ]  # fmt: skip


def again(number, repeated, saved):
    """Judged at 10 and 20, paused; so many seconds went into steps that were trained again."""
    metrics = {"train_seconds": 10.0, "eval_seconds": 1.0, "repeated_seconds": 0.0, "saved_step": saved}
    rungs = (Rung(10, 0.5, metrics), Rung(20, 0.4, {**metrics, "repeated_seconds": repeated}))
    return Configuration(number, "sampled", {}, {}, "paused", rungs=rungs)


def test_what_is_trained_again_is_known_to_cost_and_counted_once():
    scheduler_config = SchedulerConfig((10, 20, 40))
    saved, unsaved = again(0, 0.0, 20), again(0, 10.0, 0)
    assert (saved.seconds, unsaved.seconds) == (22.0, 32.0)
    assert saved.seconds_a_step == unsaved.seconds_a_step == 1.1
    assert seconds_to_finish(scheduler_config, [saved]) == pytest.approx(22.0)
    assert seconds_to_finish(scheduler_config, [unsaved]) == pytest.approx(44.0), "from the start"
    lefts = [eta.seconds_left(scheduler_config, [trial], 8) for trial in (saved, unsaved)]
    assert lefts[1] > 1.2 * lefts[0]
    old = Configuration(0, "sampled", {}, {}, "paused", rungs=(Rung(20, 0.4, {"train_seconds": 20.0}),))
    assert (old.saved_step, old.seconds) == (20, 20.0), "a result of an earlier version"
