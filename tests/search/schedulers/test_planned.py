"""Halving by a plan: the default recipe first, waves, what can still win, and at most one training past the plan."""

import dataclasses
import math

import pytest

from search.process_id import ProcessId
from search.records import Configuration, Rung
from search.schedulers import eta, planned
from search.schedulers.asha import POLICIES, promising
from search.schedulers.scheduler import NextSegment, SchedulerConfig, SchedulerState, choose
from search.simulation.memory_ledger import MemoryLedger

RUNGS = (10, 20, 40, 80)
AUTO = SchedulerConfig(RUNGS, spend="auto")


def trial(number, curve, state="paused", **fields):
    rungs = tuple(Rung(step, value, {"train_seconds": 1.0}) for step, value in curve.items())
    return Configuration(number, fields.pop("origin", "sampled"), {}, {}, state, rungs=rungs, **fields)


def chosen(history, total, config=AUTO, closing=False):
    return choose(POLICIES["halving"], SchedulerState(config, history, total, closing))


def searched(config, total, value, workers=1, first_origin="start"):
    """A study of toys whose workers finish in the order in which they began; `value` is of (number, step)."""
    ledger, worker, running = MemoryLedger("toy", total), ProcessId.current(), []
    while True:
        while len(running) < workers and (claim := ledger.claim(worker, config)) is not None:
            if claim.params is None:
                origin = first_origin if claim.number == 0 else "sampled"
                assert ledger.set_params(claim, {"n": claim.number}, {}, origin)
            running.append(claim)
        if not running:
            return ledger.history()
        claim = running.pop(0)
        ledger.commit(claim, value(claim.number, claim.last_step), {"train_seconds": 1.0}, config)


def noisy(number, step):
    """Number 12 is the best in the end; early on each third is flattered."""
    return 0.2 + 0.02 * abs(number - 12) + (0.03 * (number % 3)) * 10 / step + 2.0 / step


def test_few_are_trained_deeply_and_many_are_not():
    shares = [AUTO.planned_trainings(count) / count for count in (1, 8, 20, 40, 200)]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert AUTO.planned_trainings(0) == 0.0
    share = SchedulerConfig(RUNGS, spend=0.5)
    assert share.planned_trainings(40) == 20.0
    assert SchedulerConfig(RUNGS, spend=0.0).planned_trainings(9) == 2.875, "all get to the first rung, two to the end"


def test_the_default_recipe_is_trained_in_full_before_anything_else():
    first = trial(0, {10: 9.0}, origin="start")
    better = trial(1, {10: 0.1})
    assert chosen([first, better], 20) == NextSegment(0, 10, 20)
    running = trial(0, {10: 9.0}, "running", origin="start", target=20)
    assert chosen([running], 20) == NextSegment(None, 0, 10), "other workers begin others meanwhile"
    failed = trial(0, {10: 9.0}, "failed", origin="start", failure="diverged")
    assert chosen([failed, better], 20) == NextSegment(None, 0, 10)


def test_a_wave_is_judged_before_any_of_it_goes_on():
    wave = planned.wave_ends(20)
    assert wave[-1] == 20
    assert max(wave[0], wave[1] - wave[0]) <= 1.5 * planned._WAVE
    done = trial(0, {10: 0.9, 20: 0.8, 40: 0.6, 80: 0.5}, "finished", origin="start")
    others = [trial(number, {10: 0.9 - 0.01 * number}) for number in range(1, wave[0])]
    assert chosen([done, *others[:-1]], 20) == NextSegment(None, 0, 10)
    busy = [done, *others[:-1], trial(wave[0] - 1, {}, "running", target=10)]
    assert chosen(busy, 20) == NextSegment(None, 0, 10), "nobody waits: another worker begins the next wave"
    assert chosen([done, *others], 20) == NextSegment(wave[0] - 1, 10, 20)


def test_what_can_no_longer_win_is_not_paid_for():
    full = [trial(number, {10: 0.9, 20: 0.7, 40: 0.5, 80: 0.4}, "finished") for number in range(3)]
    near, hopeless = trial(3, {10: 0.91}), trial(4, {10: 40.0})
    state = SchedulerState(SchedulerConfig(RUNGS, spend=1.0), [*full, near, hopeless], 5)
    assert planned.contenders(state) == [near]
    assert chosen(state.history, 5, state.config) == NextSegment(3, 10, 20)
    left = planned.more_would_buy(state)
    assert (left.trials, left.trainings) == ((3,), 0.875)
    assert chosen([*full, hopeless], 4, state.config) is None


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("first_origin", ["start", "sampled"])
def test_a_study_spends_what_was_planned_and_no_more(workers, first_origin):
    history = searched(AUTO, 20, noisy, workers, first_origin)
    spent = sum(trial.steps for trial in history) / RUNGS[-1]
    plan = AUTO.planned_trainings(20)
    assert len(history) == 20
    assert plan - 1.0 < spent <= plan + 1e-9, "less than a training in full is left"
    full = {trial.number for trial in history if trial.state == "finished"}
    assert 12 in full
    assert 0 in full or first_origin == "sampled", "a study never ends below what it was given"
    assert {trial.state for trial in history} == {"finished", "pruned"}
    assert eta.time_left(AUTO, history, 20).seconds == 0.0


def test_a_first_rung_that_takes_more_than_an_eighth_is_half_paid_for_on_top():
    """Judging 20 at a quarter takes 5 trainings where at an eighth it takes 2.5."""
    eighths = SchedulerConfig((10, 80), spend="auto").planned_trainings(20)
    assert eighths == pytest.approx(0.65 * 20**0.8)
    assert SchedulerConfig((5, 80), spend="auto").planned_trainings(20) == eighths
    assert SchedulerConfig((20, 80), spend="auto").planned_trainings(20) == pytest.approx(eighths + 1.25)
    assert SchedulerConfig((20, 80), spend=0.4).planned_trainings(20) == pytest.approx(8.0), "as it was asked for"


def test_more_trials_go_on_where_fewer_ended():
    few = searched(AUTO, 10, noisy)
    again = SchedulerState(AUTO, few, 20)
    assert choose(POLICIES["halving"], again) is not None
    assert planned.allowance(again) >= planned.spent_trainings(again) - 1.0


QUARTERS = SchedulerConfig((20, 40, 80), spend=0.38)  # of 12 configurations 4.6 trainings, 3 of them for step 20


def ended(best_of_last_wave, limit=math.inf):
    """A study of 12 whose first rungs take most of its plan, when all are judged and too little is left for another."""
    history = [trial(0, {20: 0.6, 40: 0.5, 80: 0.4}, "finished", origin="start")]
    history.append(trial(1, {20: 0.7, 40: 0.55, 80: 0.45}, "finished"))
    history += [trial(number, {20: 0.7}) for number in range(2, 11)]
    history.append(trial(11, {20: best_of_last_wave}))
    state = SchedulerState(dataclasses.replace(QUARTERS, limit=limit), history, 12)
    assert 0.0 < planned.allowance(state) - planned.spent_trainings(state) < 0.75
    return choose(POLICIES["halving"], state)


def test_a_study_does_not_end_before_its_expected_winner_is_trained():
    assert ended(0.5) == NextSegment(11, 20, 40), "worth going past the plan for"
    assert ended(0.62) is None, "it could still win, but is not expected to"
    assert ended(0.5, limit=4.6) is None, "a deadline is kept"


def test_past_the_plan_one_is_trained_and_no_other():
    def value(number, step):
        return (0.4 if number == 0 else 0.3 - 0.01 * number) + 1.0 / step

    history = searched(QUARTERS, 16, value)
    spent = sum(trial.steps for trial in history) / 80
    plan = QUARTERS.planned_trainings(16)
    assert plan < spent < plan + 0.75
    assert 15 in {trial.number for trial in history if trial.state == "finished"}, "the best of the last wave"


def test_what_a_study_is_expected_to_spend_is_its_plan_and_what_it_ends_with():
    assert planned.expected_trainings(AUTO, 20) == AUTO.planned_trainings(20), "there is room for two of the last wave"
    halves = SchedulerConfig((40, 80), spend="auto")
    # Of 8 two are trained in full; 8 more take all of the plan to be judged, and the best of them takes half.
    assert halves.planned_trainings(16) == pytest.approx(9.0, abs=0.05)
    assert planned.expected_trainings(halves, 16) == pytest.approx(9.5)
    history = searched(halves, 16, lambda number, step: 1.0 - 0.02 * number + 1.0 / step)
    assert sum(trial.steps for trial in history) / 80 == 9.5
    assert planned.expected_trainings(halves, 0) == 0.0
    assert planned.expected_trainings(SchedulerConfig((80,), spend="auto"), 8) == 8.0
    in_time = dataclasses.replace(halves, limit=9.2)
    assert not planned.waves_ahead(in_time, 8, 16, 5.0)[-1].exceeds, "a deadline is kept"


def test_a_study_without_a_result_in_full_gets_one_whatever_the_plan():
    history = [trial(number, {10: 0.5 + number}) for number in range(3)]
    assert chosen(history, 3, SchedulerConfig(RUNGS, spend=0.0)) == NextSegment(0, 10, 20)


def test_another_than_the_default_recipe_is_trained_in_full_even_where_the_first_rung_takes_most_of_the_plan():
    config = SchedulerConfig((20, 40, 80), spend="auto")
    history = searched(config, 8, lambda number, step: (0.9 if number == 0 else 0.5 + 0.01 * number) + 1.0 / step)
    assert [trial.number for trial in history if trial.state == "finished"] == [0, 1]


def test_time_plans_as_trainings_do():
    began = [trial(0, {10: 0.9, 20: 0.8, 40: 0.6, 80: 0.5}, "finished", origin="start")]
    in_time = eta.trainings_in_time(AUTO, began, seconds=8.0, workers=1)
    assert in_time == pytest.approx(3.0), "one training took four seconds"
    assert eta.trainings_in_time(AUTO, [], 8.0) == float("inf")
    limited = SchedulerConfig(RUNGS, spend="auto", limit=in_time)
    count = limited.affordable(20)
    assert AUTO.planned_trainings(count) <= 3.0 < AUTO.planned_trainings(count + 1)
    history = searched(limited, 20, noisy)
    assert len(history) == count, "fewer are begun, and those are trained to the end"
    assert sum(trial.steps for trial in history) / RUNGS[-1] <= 3.0
    assert any(trial.state == "finished" for trial in history)
    assert "pruned" not in {trial.state for trial in history}, "those that time did not allow wait for more"


def test_checkpoints_are_kept_for_those_that_go_on_first():
    history = [trial(0, {10: 0.9, 20: 0.6, 40: 0.5}, origin="start")]
    history += [trial(number, {10: value}) for number, value in ((1, 0.8), (2, 30.0), (3, 0.7))]
    assert [paused.number for paused in promising(SchedulerState(AUTO, history, 20))] == [0, 3, 1, 2]
