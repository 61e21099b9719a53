"""A search never tries one configuration twice, unless the space is used up, which is said."""

import dataclasses

import pytest

from search.records import Configuration, Rung
from search.samplers import repeats
from search.samplers.sampler import SAMPLERS, draw
from search.space.distributions import Choice, FloatRange, IntRange
from tests.support.toy_study import Watcher, toy_space, toy_storage, toy_study, work

FINITE = {"a": Choice(("x", "y", True, 1)), "b": IntRange(0, 4, step=2), "c": FloatRange(0.0, 0.2, step=0.1)}  # 36
ENDS = {"a": Choice(("x", "y")), "c": FloatRange(1e-6, 1e-3, log=True), "d": FloatRange(0.3, 6.0, log=True)}
FINITE_SPACE = """
study: toy
data: {dataset: none}
budget: {max_steps: 8, rungs: [2, 4, 8], eta: 2, strategy: STRATEGY}
search:
  x: {low: 0, high: 2, step: 1}
  kind: [plain, fancy]
"""


def configuration(number, drawn, value=None, origin="sampled"):
    rungs = () if value is None else (Rung(4, value, {}),)
    return Configuration(number, origin, drawn, drawn, "finished", rungs=rungs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_draws_a_configuration_twice_until_a_finite_space_is_used_up(sampler):
    history = []
    for number in range(36):
        drawn = draw(FINITE, history, seed=0, number=number, last_rung=4, sampler=sampler)
        if number % 9 == 8:
            assert drawn == draw(FINITE, tuple(history), seed=0, number=number, last_rung=4, sampler=sampler)
        history.append(configuration(number, drawn, value=0.5 + number % 7))
    assert repeats.size(FINITE) == 36
    assert repeats.count(history) == 0
    again = draw(FINITE, history, seed=0, number=36, last_rung=4, sampler=sampler)
    assert repeats.repeated_trial(history, again) is not None


def test_guided_draws_from_one_history_are_no_copies_of_it():
    """The best lies in a corner, where the model's candidates are cut off at the ends of their ranges."""
    corner = {"a": "x", "c": 1e-6, "d": 0.3}
    history = [configuration(0, corner, value=0.1)]
    for number in range(1, 10):
        history.append(configuration(number, draw(ENDS, (), seed=1, number=number, last_rung=4), value=1.0 + number))
    for seed in range(30):
        drawn = draw(ENDS, history, seed=seed, number=10, last_rung=4)
        assert repeats.repeated_trial(history, drawn) is None


def test_given_values_count_for_what_is_a_repeat():
    taken = [configuration(0, {"a": value, "b": 0, "c": 0.0}, 1.0) for value in ("x", "y", True)]
    drawn = draw(FINITE, taken, seed=0, number=3, last_rung=4, given={"b": 0, "c": 0.0})
    assert drawn == {"a": 1, "b": 0, "c": 0.0}
    assert type(drawn["a"]) is int, "true and 1 are two values"


def test_a_space_is_called_used_up_only_where_it_is():
    """Before 0.2.0 a draw could repeat another in a space without end."""
    copies = [configuration(number, {"a": "x", "c": 1e-5, "d": 1.0}, 1.0) for number in range(2)]
    assert repeats.remark(ENDS, copies) == "1 configuration repeats what was tried before"
    small = {"a": Choice(("x", "y"))}
    tried = [configuration(number, {"a": value}, 1.0) for number, value in enumerate(("x", "y", "x"))]
    assert repeats.remark(small, tried) == "the space is used up: 1 configuration repeats what was tried before"
    assert repeats.remark(small, tried[:2]) == ""


def test_what_was_trained_elsewhere_may_be_trained_here():
    elsewhere = [configuration(0, {"a": "x", "b": 0, "c": 0.0}, 1.0, origin="imported")]
    assert repeats.repeated_trial(elsewhere, {"a": "x", "b": 0, "c": 0.0}) is None


@pytest.mark.parametrize("strategy", ["halving", "bracket"])
def test_a_study_tries_all_of_a_small_space_before_it_repeats_one_and_says_so(tmp_path, strategy):
    space = toy_space(tmp_path, strategy, FINITE_SPACE)
    ledger = toy_study(toy_storage(tmp_path), space, trials=7)
    _, watcher = work(ledger, space, tmp_path / "toy", watcher=Watcher())
    drawn = [tuple(sorted(trial.drawn.items())) for trial in ledger.history()]
    assert len(set(drawn[:6])) == 6
    assert [line for line in watcher.notices if "the space holds 6 configurations" in line]


def test_what_another_worker_drew_meanwhile_is_drawn_again(tmp_path):
    from search.errors import RepeatedDrawError
    from search.process_id import ProcessId

    space = toy_space(tmp_path, "halving", FINITE_SPACE)
    ledger = toy_study(toy_storage(tmp_path), space, trials=6)
    config = space.budget.scheduler_config
    first = ledger.claim(ProcessId.current(), config)
    second = ledger.claim(dataclasses.replace(ProcessId.current(), host="other"), config)
    values = {"x": 1.0, "kind": "plain"}
    assert ledger.set_params(first, values, values, "sampled")
    with pytest.raises(RepeatedDrawError):
        ledger.set_params(second, values, values, "sampled")
    informed = dataclasses.replace(second, history=ledger.history())
    assert ledger.set_params(informed, values, values, "sampled"), "the space may be used up"
