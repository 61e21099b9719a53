"""Importances say what is known and how well; slices and the order of results come from the ledger's own history."""

import json
import math
import random

import pytest

from search.dashboard import importances
from search.records import IMPORTED, Configuration, Rung
from search.storage import timeline
from tests.support.toy_study import KNOBS, toy_space, toy_storage, toy_study, work


@pytest.fixture
def space(tmp_path):
    return toy_space(tmp_path)


def history(count, noise=0.1, seed=0):
    """x has its minimum at 3, `kind` does nothing; half of them were promoted."""
    chance, found = random.Random(seed), []
    for number in range(count):
        drawn = {"x": chance.uniform(0, 10), "kind": chance.choice(["plain", "fancy"])}
        value = (drawn["x"] - 3) ** 2 / 20 + chance.gauss(0, noise)
        rungs = (Rung(2, value, {}), Rung(4, value / 2, {}))[: 1 + number % 2]
        found.append(Configuration(number, "sampled", drawn, drawn, "pruned", rungs=rungs))
    return found


def test_the_knob_that_matters_is_told_and_the_other_is_not(space):
    comparable = importances.comparable_results(history(40))
    assert (comparable.step, len(comparable.results)) == (2, 40)
    found = importances.importances(space, comparable)
    first, second = found.knobs
    assert (first.name, second.name) == ("x", "kind")
    assert first.above_chance
    assert not second.above_chance
    assert first.low <= first.share <= first.high
    assert first.share + second.share == pytest.approx(1)
    assert found == importances.importances(space, comparable), "equal input, equal figures"


def test_nothing_is_told_of_noise(space):
    chance, flat = random.Random(3), []
    for one in history(40):
        flat.append(
            Configuration(one.number, "sampled", one.drawn, one.params, "pruned", rungs=(Rung(2, chance.random(), {}),))
        )
    told = [one.above_chance for one in importances.importances(space, importances.comparable_results(flat)).knobs]
    assert told.count(True) <= 1, "one in twenty may pass the level of chance"


@pytest.mark.parametrize(("count", "why"), [(0, "0 configurations"), (14, "14 configurations")])
def test_too_few_to_tell(space, count, why):
    found = importances.importances(space, importances.comparable_results(history(count)))
    assert found.knobs == ()
    assert why in found.why


def test_equal_results_tell_nothing(space):
    equal = [
        Configuration(one.number, "sampled", one.drawn, one.params, "pruned", rungs=(Rung(2, 0.5, {}),))
        for one in history(20)
    ]
    assert importances.importances(space, importances.comparable_results(equal)).why == "all results are equal"


def test_what_compares(space):
    known = history(4)
    foreign = Configuration(4, IMPORTED, known[0].drawn, known[0].params, "finished", rungs=(Rung(2, 0.0, {}),))
    failed = Configuration(
        5, "sampled", known[0].drawn, known[0].params, "failed", failure="diverged", rungs=(Rung(2, 9.0, {}),)
    )
    endless = Configuration(6, "sampled", known[0].drawn, known[0].params, "pruned", rungs=(Rung(2, math.inf, {}),))
    found = importances.comparable_results([*known, foreign, failed, endless])
    assert [one.number for one, _ in found.results] == [0, 1, 2, 3]
    assert importances.comparable_results([]) is None


def test_slices_are_optunas(space):
    drawn = json.loads(importances.slices(space, importances.comparable_results(history(6)), "loss"))
    assert len(drawn["data"]) == 2
    assert all(len(trace["x"]) == 6 for trace in drawn["data"])
    assert importances.slices(space, importances.comparable_results(history(1)), "loss") is None


def test_results_in_the_order_they_came(tmp_path, space):
    ledger = toy_study(toy_storage(tmp_path), space, 3)
    work(ledger, space, tmp_path / "toy")
    found = timeline.recorded_results(ledger)
    assert sorted((one.number, one.step) for one in found) == sorted(
        (one.number, rung.step) for one in ledger.history() for rung in one.rungs
    )
    assert [one.committed for one in found] == sorted(one.committed for one in found)
    assert found[-1].spent == pytest.approx(sum(one.seconds for one in ledger.history()))
    assert set(KNOBS) == {"x", "kind"}
