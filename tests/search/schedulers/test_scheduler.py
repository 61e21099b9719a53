"""Decisions on rungs are functions of the history alone."""

import math

import pytest

from search.records import Claim, Configuration, Rung, best_configuration
from search.schedulers.asha import POLICIES, promising
from search.schedulers.scheduler import (
    NextSegment,
    SchedulerConfig,
    SchedulerState,
    choose,
    decide,
    next_rung,
    seconds_to_finish,
)

RULE = SchedulerConfig((10, 20, 40), "halving", 2, max_full=0)


def config(number, curve=None, state="paused", failure=None, errors=None, target=None):
    rungs = tuple(
        Rung(step, value, {"train_seconds": 1.0, **({"errors": errors[step]} if errors else {})})
        for step, value in (curve or {}).items()
    )
    target = (rungs[-1].step if rungs else 0) if target is None else target
    return Configuration(number, "sampled", {}, {}, state, rungs=rungs, failure=failure, target=target)


def chosen(history, total, scheduler_config=RULE, closing=False):
    return choose(POLICIES[scheduler_config.strategy], SchedulerState(scheduler_config, history, total, closing))


def settled(history, number, step, value, scheduler_config):
    claim = Claim("s", number, 1, "me", {}, {}, 0, step, ())
    running = [config(number, {}, "running", target=step), *history]
    return decide(
        POLICIES[scheduler_config.strategy],
        scheduler_config,
        sorted(running, key=lambda trial: trial.number),
        9,
        claim,
        value,
        {},
    )[0]


def test_what_was_begun_comes_first_then_what_a_person_queued():
    history = [config(0, {10: 0.9}), config(1, {10: 0.5}, target=20), config(2, state="queued")]
    assert chosen(history, 10) == NextSegment(1, 10, 20)
    assert chosen([history[0], history[2]], 1) == NextSegment(2, 0, 10), "a queued one runs though the total is reached"
    assert chosen([], 10) == NextSegment(None, 0, 10)
    assert next_rung(RULE, 15) == 20


def test_halving_promotes_the_upper_half_and_waits_for_nobody():
    assert chosen([config(0, {10: 0.5})], 10) == NextSegment(None, 0, 10), "half of one is none"
    two = [config(0, {10: 0.5}), config(1, {10: 0.4})]
    assert chosen(two, 10) == NextSegment(1, 10, 20)
    promoted = [two[0], config(1, {10: 0.4}, "running", target=20)]
    assert chosen(promoted, 10) == NextSegment(None, 0, 10), "its half is taken"
    four = [two[0], config(1, {10: 0.4, 20: 0.3}), config(2, {10: 0.6}), config(3, {10: 0.45})]
    assert chosen(four, 10) == NextSegment(3, 10, 20)
    higher = [*four[:3], config(3, {10: 0.45, 20: 0.2})]
    assert chosen(higher, 10) == NextSegment(3, 20, 40), "the highest rung is served first"


def test_two_in_three_go_on_past_the_last_rung_before_the_end():
    scheduler_config = SchedulerConfig((10, 20, 40), "halving", 4)
    three = [config(number, {10: 0.5, 20: value}) for number, value in enumerate((0.3, 0.2, 0.4))]
    assert chosen(three, 10, scheduler_config) == NextSegment(1, 20, 40)
    trial = config(1, {10: 0.5, 20: 0.2, 40: 0.1}, "finished")
    assert chosen([three[0], trial, three[2]], 10, scheduler_config) == NextSegment(0, 20, 40)
    two = config(0, {10: 0.5, 20: 0.3, 40: 0.1}, "finished")
    assert chosen([two, trial, three[2]], 10, scheduler_config) == NextSegment(None, 0, 10), (
        "the third is not among them"
    )
    first = [config(number, {20: 0.1 * number}) for number in range(3)]
    assert chosen(first, 10, SchedulerConfig((20, 40), "halving", 4)) == NextSegment(None, 0, 20), (
        "a first rung is an early one"
    )


def test_what_lost_is_called_back_when_others_do_worse():
    history = [config(0, {10: 0.5, 20: 0.4, 40: 0.3}, "finished"), config(1, {10: 0.6}, "pruned")]
    history += [config(2, {10: 0.7}, "pruned"), config(3, {10: 0.8}, "pruned")]
    assert chosen(history, 10) == NextSegment(1, 10, 20)


def test_the_end_brings_the_best_of_each_rung_to_the_top():
    history = [config(0, {10: 0.5}), config(1, {10: 0.4, 20: 0.4}), config(2, {10: 0.6})]
    assert chosen(history, 3) == NextSegment(1, 20, 40), "alone at its rung, and the last one"
    busy = [*history, config(3, {}, "running", target=10)]
    assert chosen(busy, 4) is None, "the one that is running may be better"
    done = [history[0], config(1, {10: 0.4, 20: 0.4, 40: 0.3}, "finished"), history[2]]
    assert chosen(done, 3) is None
    assert chosen(done, 9, closing=True) is None, "no time for new ones"


@pytest.mark.parametrize(("worse", "goes_on"), [([1, 1, 0, 0, 1, 0], True), ([9, 8, 9, 9, 8, 9], False)])
def test_whoever_cannot_be_told_from_the_leader_is_trained_in_full(worse, goes_on):
    scheduler_config = SchedulerConfig((10, 20), "halving", 2, max_full=1)
    zeros = [0, 1, 0, 0, 0, 0]
    leader = config(0, {10: 0.2, 20: 0.1}, "finished", errors={10: zeros, 20: zeros})
    history = [leader, config(1, {10: 0.3}, errors={10: worse}), config(2, {10: 0.9}, errors={10: [9] * 6})]
    assert (chosen(history, 3, scheduler_config) == NextSegment(1, 10, 20)) is goes_on
    assert chosen(history, 3, SchedulerConfig((10, 20), "halving", 2, max_full=0)) is None
    tied = config(1, {10: 0.3, 20: 0.1}, "finished", errors={10: worse, 20: zeros})
    assert chosen([leader, tied, history[2]], 3, scheduler_config) is None, "one is all that max_full asks for"


def test_failed_ones_count_as_worst_at_the_rung_that_they_were_on_the_way_to():
    failed = [config(number, {}, "failed", failure="diverged", target=10) for number in (0, 1, 2)]
    assert chosen([*failed, config(3, {10: 5.0})], 10) == NextSegment(3, 10, 20)
    assert chosen([config(0, {10: math.inf}), config(1, {10: 0.5})], 10) == NextSegment(1, 10, 20)


def test_a_bracket_waits_until_its_rung_is_complete():
    scheduler_config = SchedulerConfig((10, 20, 40), "bracket", 2)
    history = [config(0, {10: 0.5}), config(1, {10: 0.4}), config(2, {10: 0.6})]
    assert chosen(history, 4, scheduler_config) == NextSegment(None, 0, 10)
    assert chosen([*history, config(3, {}, "running", target=10)], 4, scheduler_config) is None
    complete = [*history, config(3, {10: 0.9})]
    assert chosen(complete, 4, scheduler_config) == NextSegment(1, 10, 20)
    later = [complete[0], config(1, {10: 0.4, 20: 0.35}), *complete[2:]]
    assert chosen(later, 4, scheduler_config) == NextSegment(0, 10, 20)
    both = [config(0, {10: 0.5, 20: 0.2}), *later[1:]]
    assert chosen(both, 4, scheduler_config) == NextSegment(0, 20, 40)
    assert chosen([config(0, {10: 0.5, 20: 0.2, 40: 0.1}, "finished"), *later[1:]], 4, scheduler_config) is None


def test_checkpoints_are_kept_of_what_can_still_go_on():
    history = [config(number, {10: number / 10}) for number in range(8)]
    assert [trial.number for trial in promising(SchedulerState(RULE, history, 8))] == list(range(8))
    higher = [config(0, {10: 0.0, 20: 0.1}), config(1, {10: 0.1, 20: 0.2}), *history[2:]]
    # 2 and 3 are beyond a share of two at the first rung; 1 is the second of two at its own.
    assert [trial.number for trial in promising(SchedulerState(RULE, higher[:4], 4))] == [0, 1, 2, 3]
    ended = [config(0, {10: 0.1, 20: 0.1, 40: 0.1}, "finished"), config(1, {10: 1.0}, "pruned")]
    assert promising(SchedulerState(RULE, ended, 2)) == []
    running = [config(0, {10: 0.0}, "running", target=20), *history[1:]]
    assert 0 not in [trial.number for trial in promising(SchedulerState(RULE, running, 16))]


def test_time_to_finish_is_the_leaders():
    history = (config(0, {10: 0.5}), config(1, {10: 0.4, 20: 0.3}))
    assert seconds_to_finish(RULE, history) == pytest.approx(2.0)
    assert seconds_to_finish(RULE, ()) == 0.0
    assert seconds_to_finish(RULE, (config(0, {10: 0.5, 20: 0.4, 40: 0.4}, "finished"),)) == 0.0


def test_best_compares_at_one_rung_only():
    early, full, failed = config(0, {10: 0.01}), config(1, {10: 0.5, 40: 0.3}), config(2, {40: 0.1}, failure="oom")
    assert best_configuration((early, full, failed)) is full
    assert best_configuration((failed,)) is None
