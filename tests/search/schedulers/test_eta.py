"""What a study still takes, and within which range: estimates held against recorded studies, in virtual time."""

import heapq
import statistics
from pathlib import Path

import pytest

from search.process_id import ProcessId
from search.records import Configuration, Rung
from search.schedulers import eta, planned
from search.schedulers.asha import POLICIES
from search.schedulers.eta import TimeLeft
from search.schedulers.scheduler import SchedulerConfig, SchedulerState, choose, seconds_to_finish
from search.simulation import benchmark_table
from search.simulation.simulator import Method, SimulatedSearch

REPLAY = Path(__file__).parents[3] / "studies" / "replay"
DEMO = benchmark_table.read(REPLAY / "demo.jsonl")


def model(trial):
    return trial.params.get("model") if trial.params else None


def looks(strategy, workers, seed, trials=20, spend=None, table=DEMO, rungs=None):
    """(estimate, what it really took from then on) after every result of a study."""
    method = Method("a", strategy, "quasi-random", trials=trials, spend=spend, rungs=rungs)
    search = SimulatedSearch(table, method, seed, workers)
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
            estimate = eta.time_left(search.scheduler_config, search.ledger.history(), trials, workers, model)
            estimates.append((now, estimate))
        if not running:
            return [(estimate, now - at) for at, estimate in estimates]
        now, _, claim = heapq.heappop(running)
        idle += 1
        search._commit(claim)


@pytest.mark.parametrize(
    ("strategy", "spend"), [("halving", "auto"), ("halving", None), ("bracket", None), ("none", None)]
)
@pytest.mark.parametrize("workers", [1, 4])
def test_an_estimate_is_near_as_a_rule_and_its_range_holds_the_end(strategy, spend, workers):
    shares = []
    inside = []
    for seed in range(4):
        pairs = looks(strategy, workers, seed, spend=spend)
        assert pairs[-1] == (TimeLeft(0.0, 0.0, 0.0), 0.0)
        early = [pair for pair in pairs if 0.3 * pairs[0][1] < pair[1] < 0.9 * pairs[0][1]]
        shares.append(statistics.median(estimate.seconds / real for estimate, real in early))
        inside += [estimate.low <= real <= estimate.high for estimate, real in early]
    assert 0.6 < statistics.median(shares) < 1.6, shares
    assert statistics.fmean(inside) > 0.6


@pytest.mark.parametrize("workers", [1, 4])
def test_what_a_study_with_a_coarse_first_rung_trains_past_its_plan_is_estimated(workers):
    """At half a training each, 16 take their whole plan of 9 to be judged; the best of the last wave comes on top."""
    windows = benchmark_table.read(REPLAY / "windows.jsonl")
    inside = []
    shares = []
    for seed in range(6):
        pairs = looks("halving", workers, seed, trials=16, spend="auto", table=windows, rungs=(6, 12))
        inside += [estimate.low <= real <= estimate.high for estimate, real in pairs]
        shares += [estimate.seconds / real for estimate, real in pairs if real > 0.2 * pairs[0][1]]
    assert statistics.fmean(inside) > 0.85, "without it .80 and .74"
    assert 0.85 < statistics.median(shares) < 1.2


def trial(number, state="paused", rungs=(), **more):
    curve = tuple(Rung(step, value, {"train_seconds": 10.0, "eval_seconds": 1.0}) for step, value in rungs)
    return Configuration(number, "sampled", {}, {}, state, rungs=curve, **more)


def test_nothing_is_said_before_there_is_a_result():
    scheduler_config = SchedulerConfig((10, 20, 40))
    assert eta.time_left(scheduler_config, [], 8) is None
    assert eta.time_left(scheduler_config, [trial(0, "running", target=10)], 8) is None


def test_a_running_segment_owes_what_is_left_of_it():
    scheduler_config = SchedulerConfig((10, 20, 40), "none")
    history = [trial(0, "running", [(10, 0.5), (20, 0.4)], target=40, progress={"step": 30})]
    # Three segments of 11, 11 and 21 seconds, of which ten steps of forty are left.
    assert eta.time_left(scheduler_config, history, 1).seconds == pytest.approx(10 / 40 * (11 + 11 + 21))


def test_imported_trainings_owe_nothing():
    scheduler_config = SchedulerConfig((10, 20, 40), "none")
    ended = trial(0, "finished", [(10, 0.5), (20, 0.4), (40, 0.3)])
    imported = Configuration(1, "imported", None, {}, "pruned", rungs=(Rung(10, 0.1, {}),))
    assert eta.time_left(scheduler_config, [ended, imported], 1).seconds == 0.0
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
    lefts = [eta.time_left(scheduler_config, [trial], 8).seconds for trial in (saved, unsaved)]
    assert lefts[1] > 1.2 * lefts[0]
    old = Configuration(0, "sampled", {}, {}, "paused", rungs=(Rung(20, 0.4, {"train_seconds": 20.0}),))
    assert (old.saved_step, old.seconds) == (20, 20.0), "a result of an earlier version"


def test_a_plan_is_followed_wave_by_wave_and_many_workers_wait_for_the_wave():
    config = SchedulerConfig((10, 20, 40, 80), spend="auto")
    full = [(10, 0.5), (20, 0.4), (40, 0.3), (80, 0.2)]
    history = [trial(0, "finished", full)]  # 4 segments of 11 seconds each
    alone = eta.time_left(config, history, 10)
    # Nine more to the first rung; the plan of 4.1 trainings then has room for two more in full.
    assert alone.seconds == pytest.approx(9 * 11 + 2 * 33)
    assert eta.time_left(config, history, 10, workers=9).seconds == pytest.approx(11 + 33)
    assert eta.time_left(config, history, 10, workers=2).seconds == pytest.approx(5 * 11 + 33)


def test_a_plan_that_is_spent_owes_what_the_study_ends_with():
    """As test_planned.py has it: the best of the last wave is trained past the plan where it is expected to win."""
    config = SchedulerConfig((20, 40, 80), spend=0.38)
    full = [
        trial(0, "finished", [(20, 0.6), (40, 0.5), (80, 0.4)]),
        trial(1, "finished", [(20, 0.7), (40, 0.6), (80, 0.45)]),
    ]
    losers = [trial(number, rungs=[(20, 0.7)]) for number in range(2, 11)]
    rest = 22.0  # two segments of 10 + 1 seconds
    for best, running, seconds in (
        (0.5, {}, rest),
        (0.62, {}, 0.0),
        (0.5, {"state": "running", "target": 40}, rest),
        (0.5, {"state": "running", "target": 40, "progress": {"step": 30}}, rest - 5.5),
    ):
        history = [*full, *losers, trial(11, rungs=[(20, best)], **running)]
        assert eta.time_left(config, history, 12).seconds == pytest.approx(seconds), (best, running)
        claimed = choose(POLICIES["halving"], SchedulerState(config, history, 12))
        assert (claimed is None) == (seconds == 0.0 or bool(running)), "as the scheduler does"


def test_what_is_judged_last_owes_the_best_of_it():
    """Half of the last wave or more is at its first rung, and the plan has no room for any: one is trained in full."""
    config = SchedulerConfig((40, 80), spend="auto")
    judged = [trial(number, rungs=[(40, 0.7)]) for number in range(8)]
    ended = [trial(number, "finished", [(40, 0.6), (80, 0.5)]) for number in range(2)] + judged[2:]
    last = [trial(number, "running", target=40) for number in range(8, 16)]
    assert planned.waves_ahead(config, 8, 16, 5.0) == [planned.WaveAhead(8, 1, exceeds=True)]
    assert eta.time_left(config, [*ended, *last], 16, workers=8).seconds == pytest.approx(11 + 11)
    assert eta.time_left(config, ended, 16, workers=8).seconds == pytest.approx(11 + 11), "the same before it begins"
    few = [trial(number, rungs=[(40, 0.7)]) for number in range(8, 15)] + last[-1:]
    assert eta.time_left(config, [*ended, *few], 16, workers=8).seconds == pytest.approx(11), "one may lose"


def test_the_range_narrows_with_what_was_seen_and_follows_the_clock():
    config = SchedulerConfig((10, 20, 40), "none")
    full = [(10, 0.5), (20, 0.4), (40, 0.3)]
    widths = []
    for seen in (1, 4, 16):
        left = eta.time_left(config, [trial(number, "finished", full) for number in range(seen)], 40)
        assert left.low < left.seconds < left.high
        widths.append((left.high - left.low) / left.seconds)
    assert widths == sorted(widths, reverse=True)
    assert TimeLeft(60.0, 30.0, 90.0).less(40.0) == TimeLeft(20.0, 0.0, 50.0)
    assert TimeLeft(60.0, 30.0, 90.0).until(45.0) == TimeLeft(45.0, 30.0, 45.0)
    assert TimeLeft(60.0, 30.0, 90.0).until(-1.0) == TimeLeft(0.0, 0.0, 0.0)
