"""Decisions on rungs are functions of the history alone."""

import math

from search.ladder import Rule, Work, choose, next_rung, verdict
from search.records import Configuration, Rung, best


def config(number, curve=None, state="paused", failure=None):
    rungs = tuple(Rung(step, value, {}) for step, value in (curve or {}).items())
    return Configuration(number, "sampled", {}, {}, state, rungs=rungs, failure=failure)


RULE = Rule((10, 20, 40), "halving", 2)


def test_halving_lets_the_better_half_go_on():
    others = [config(n, {10: value}) for n, value in enumerate((0.5, 0.6, 0.7))]
    assert verdict(RULE, others, 10, 0.4) == "goes on"
    assert verdict(RULE, others, 10, 0.55) == "goes on", "second of four"
    assert verdict(RULE, others, 10, 0.65) == "pruned", "third of four"
    assert verdict(RULE, [], 10, 9.0) == "goes on", "the first has nobody to lose against"
    assert verdict(RULE, others, 40, 9.0) == "finished"


def test_a_tie_with_the_leader_goes_on():
    assert verdict(RULE, [config(0, {10: 0.5})], 10, 0.5) == "goes on"


def test_eta_four_keeps_a_quarter():
    others = [config(n, {10: n / 10}) for n in range(7)]
    assert verdict(Rule((10, 40), "halving", 4), others, 10, 0.05) == "goes on"
    assert verdict(Rule((10, 40), "halving", 4), others, 10, 0.15) == "pruned"


def test_median_compares_with_the_others_only():
    rule = Rule((10, 20), "median")
    others = [config(n, {10: value}) for n, value in enumerate((0.2, 0.4, 0.6))]
    assert verdict(rule, others, 10, 0.4) == "goes on"
    assert verdict(rule, others, 10, 0.41) == "pruned"


def test_values_at_other_rungs_and_infinite_ones_do_not_count():
    others = [config(0, {20: 0.1}), config(1, {10: math.inf})]
    assert verdict(RULE, others, 10, 0.5) == "goes on"


def test_what_was_begun_comes_first():
    free = [config(3, state="queued"), config(1, {10: 0.5}), config(0, {10: 0.1, 20: 0.1, 40: 0.1}, "finished")]
    assert choose(RULE, free, 4, 10) == Work(1, 10, 20)
    assert choose(RULE, free[:1], 4, 4) == Work(3, 0, 10), "a queued one runs though the total is reached"
    assert choose(RULE, [], 4, 10) == Work(None, 0, 10)
    assert choose(RULE, [], 4, 4) is None
    assert next_rung(RULE, 15) == 20


def test_best_compares_at_one_rung_only():
    early, full, failed = config(0, {10: 0.01}), config(1, {10: 0.5, 40: 0.3}), config(2, {40: 0.1}, failure="oom")
    assert best((early, full, failed)) is full
    assert best((failed,)) is None
