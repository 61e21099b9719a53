"""The race as a function of the history: who is due, who is out, when it is over."""

import random

import numpy as np
import pytest

from search.records import Configuration, Rung
from search.schedulers import racing
from search.schedulers.asha import ALL_POLICIES, POLICIES
from search.schedulers.scheduler import SchedulerConfig, SchedulerState, choose

RULE = SchedulerConfig((5,), racing.STRATEGY)
FORMER = SchedulerConfig((5,), "race")  # of races that began before losers were dropped
ITEMS = 60


def entered(arms, seeds, **more):
    """Every training of the race, none begun; `more` are parameters by seed."""
    history = []
    for seed in range(seeds):
        for arm in range(arms):
            params = {"x": arm, "seed": seed, **{name: values[seed] for name, values in more.items()}}
            history.append(Configuration(len(history), "arm", {}, params, "paused"))
    return history


def train(history, training, rate, noise=0.02):
    """A result with errors by item, the rate moved by the training's own luck."""
    rng = random.Random(f"{training.number}/{rate}")
    lucky = max(0.0, rate + rng.gauss(0, noise))
    errors = [sum(rng.random() < lucky for _ in range(10)) for _ in range(ITEMS)]
    rung = Rung(5, sum(errors) / (10 * ITEMS), {"errors": errors})
    history[training.number] = Configuration(
        training.number, training.origin, {}, training.params, "finished", rungs=(rung,)
    )


def run(rates, seeds=3, noise=0.02, rule=RULE):
    """The race to its end, its standing and the order of trainings."""
    history, order = entered(len(rates), seeds), []
    while (work := choose(ALL_POLICIES[rule.strategy], SchedulerState(rule, history, len(history)))) is not None:
        training = history[work.number]
        order.append((training.params["x"], training.params["seed"]))
        train(history, training, rates[training.params["x"]], noise)
    return racing.race_state(history, rule is RULE), order


def test_default_and_leader_go_first_and_rounds_go_in_step():
    history = entered(3, 2)
    first = choose(ALL_POLICIES[racing.STRATEGY], SchedulerState(RULE, history, 6))
    assert (first.number, first.first_step, first.last_step) == (0, 0, 5)
    _, order = run([0.3, 0.3, 0.3], seeds=2)
    assert order[:3] == [(0, 0), (1, 0), (2, 0)]


def test_the_worse_half_leaves_after_each_round_and_the_others_get_their_trainings():
    race, order = run([0.30, 0.29, 0.25, 0.24, 0.35], seeds=5, noise=0.002)
    assert race.over
    trainings = [sum(order.count((arm, seed)) for seed in range(5)) for arm in range(5)]
    assert trainings[1:] == [1, 2, trainings[0], 1], "four, two, then one beside the baseline"
    assert race.arms[3].fate == "in the race"
    assert [arm.fate for arm in race.arms[1:]].count("behind") == 3


def test_a_leader_that_only_draws_with_the_baseline_is_given_up_before_the_last_round():
    race, order = run([0.30, 0.31, 0.40, 0.40], seeds=6, noise=0.004)
    assert race.arms[1].fate == "no better than the baseline"
    assert race.over
    assert order.count((0, 5)) == 0


def test_a_race_that_began_without_dropping_goes_on_so():
    _, order = run([0.300, 0.295, 0.294, 0.296], seeds=3, noise=0.02, rule=FORMER)
    assert [order.count((arm, 1)) for arm in range(4)] == [1] * 4
    _, dropping = run([0.300, 0.295, 0.294, 0.296], seeds=3, noise=0.02)
    assert sum(dropping.count((arm, 1)) for arm in range(1, 4)) == 2


def test_a_contender_far_behind_is_out_early():
    race, order = run([0.30, 0.15, 0.80], seeds=5, rule=FORMER)
    assert race.over
    assert race.arms[2].fate == "behind"
    assert order.count((2, 1)) == 0, "after one training, 0.8 against 0.15 is hopeless"


def test_a_clear_answer_ends_the_race_before_its_last_round():
    race, order = run([0.60, 0.10, 0.11], seeds=5, noise=0.004)
    assert len(order) < 15
    assert race.over


def test_nobody_better_than_the_default_ends_the_race():
    race, order = run([0.20, 0.35, 0.40], seeds=5)
    assert race.over
    assert all(arm.fate != "in the race" for arm in race.arms[1:])
    assert len(order) < 15


def test_an_earlier_verdict_never_changes():
    """A race is judged round for round: what a later round brings cannot call a contender back."""
    for seed in range(8):
        rates = [0.3, *(random.Random(seed).uniform(0.1, 0.5) for _ in range(3))]
        history, fates = entered(4, 4), {}
        while due := racing.race_state(history).due:
            train(history, due[0], rates[due[0].params["x"]])
            for index, arm in enumerate(racing.race_state(history).arms):
                assert fates.get(index, "in the race") in ("in the race", arm.fate)
                fates[index] = arm.fate


def test_what_another_worker_runs_is_waited_for():
    history = entered(2, 2)
    for training in history[:2]:
        history[training.number] = Configuration(training.number, "arm", {}, training.params, "running")
    assert racing.next_replicate(SchedulerState(RULE, history, 4)) is None
    assert len(racing.race_state(history).due) == 2


def test_a_failed_contender_is_out_and_the_race_goes_on():
    history = entered(3, 2)
    history[1] = Configuration(1, "arm", {}, history[1].params, "failed", failure="diverged", target=5)
    train(history, history[0], 0.3)
    train(history, history[2], 0.2)
    race = racing.race_state(history)
    assert race.arms[1].fate == "failed"
    assert [training.number for training in race.due] == [3, 5]


def test_folds_are_replicates_of_one_arm():
    history = entered(2, 3, fold=[0, 1, 2])
    assert [arm.numbers for arm in racing.race_state(history).arms] == [(0, 2, 4), (1, 3, 5)]
    for training in list(history):
        train(history, training, [0.5, 0.1][training.params["x"]], noise=0.005)
    assert racing.race_state(history).over


@pytest.mark.parametrize("planned", [2, 3, 5, 10])
def test_all_looks_together_spend_what_one_test_may(planned):
    levels = [racing.level(done, planned, drops=False) for done in range(planned + 2)]
    assert sum(levels) == pytest.approx(racing.ALPHA)
    assert levels[0] == levels[1] == levels[-1] == 0
    assert all(level <= levels[-2] for level in levels), "early looks are the strict ones"


def test_no_space_asks_for_a_race():
    assert not {"race", racing.STRATEGY} & set(POLICIES)


def test_rows_and_columns_are_taken_out_of_a_variance_also_where_rows_are_short():
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(0, 3, 3), rng.normal(0, 3, 4)
    whole = [row + columns + rng.normal(0, 0.1, 4) for row in rows]
    variance, freedom = racing.two_way_variance(whole)
    table = np.array(whole)
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    assert freedom == 6
    assert variance == pytest.approx((residuals**2).sum() / 6)
    short_variance, short_freedom = racing.two_way_variance([whole[0], whole[1], whole[2][:2]])
    assert short_freedom == 4
    assert 0.001 < short_variance < 0.1, "not the 9 of rows and columns"
    assert racing.two_way_variance([whole[0], whole[1][:1]])[0] == pytest.approx(0.0)
