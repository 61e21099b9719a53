"""Importances tell which knobs matter and how well that is known; slices hold what Optuna's plot has."""

import json
import math
import random

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from search.dashboard import importances
from search.records import IMPORTED, Configuration, Rung
from tests.support.toy_study import toy_space


@pytest.fixture
def space(tmp_path):
    return toy_space(tmp_path)


def history(count, noise=0.1, seed=0):
    """x has its minimum at 3, `kind` does nothing; half of them were promoted."""
    rng, trials = random.Random(seed), []
    for number in range(count):
        drawn = {"x": rng.uniform(0, 10), "kind": rng.choice(["plain", "fancy"])}
        value = (drawn["x"] - 3) ** 2 / 20 + rng.gauss(0, noise)
        rungs = (Rung(2, value, {}), Rung(4, value / 2, {}))[: 1 + number % 2]
        trials.append(Configuration(number, "sampled", drawn, drawn, "pruned", rungs=rungs))
    return trials


def test_the_knob_that_matters_is_told_and_the_other_is_not(space):
    comparable = importances.comparable_results(history(40))
    assert (comparable.step, len(comparable.results)) == (2, 40)
    result = importances.importances(space, comparable)
    first, second = result.knobs
    assert (first.name, second.name) == ("x", "kind")
    assert first.above_chance
    assert not second.above_chance
    assert first.low <= first.share <= first.high
    assert first.share + second.share == pytest.approx(1)
    assert result == importances.importances(space, comparable), "equal input, equal figures"


def test_nothing_is_told_of_noise(space):
    rng, flat = random.Random(3), []
    for trial in history(40):
        flat.append(
            Configuration(
                trial.number, "sampled", trial.drawn, trial.params, "pruned", rungs=(Rung(2, rng.random(), {}),)
            )
        )
    above_chance = [
        trial.above_chance for trial in importances.importances(space, importances.comparable_results(flat)).knobs
    ]
    assert above_chance.count(True) <= 1, "one in twenty may pass the level of chance"


@pytest.mark.parametrize(("count", "why"), [(0, "0 configurations"), (14, "14 configurations")])
def test_too_few_to_tell(space, count, why):
    result = importances.importances(space, importances.comparable_results(history(count)))
    assert result.knobs == ()
    assert why in result.why


def test_equal_results_tell_nothing(space):
    equal = [
        Configuration(trial.number, "sampled", trial.drawn, trial.params, "pruned", rungs=(Rung(2, 0.5, {}),))
        for trial in history(20)
    ]
    assert importances.importances(space, importances.comparable_results(equal)).why == "all results are equal"


def test_what_compares(space):
    trials = history(4)
    foreign = Configuration(4, IMPORTED, trials[0].drawn, trials[0].params, "finished", rungs=(Rung(2, 0.0, {}),))
    failed = Configuration(
        5, "sampled", trials[0].drawn, trials[0].params, "failed", failure="diverged", rungs=(Rung(2, 9.0, {}),)
    )
    endless = Configuration(6, "sampled", trials[0].drawn, trials[0].params, "pruned", rungs=(Rung(2, math.inf, {}),))
    results = importances.comparable_results([*trials, foreign, failed, endless])
    assert [trial.number for trial, _ in results.results] == [0, 1, 2, 3]
    assert importances.comparable_results([]) is None


def test_slices_are_those_that_optuna_draws(space):
    comparable = importances.comparable_results(history(6))
    slices = importances.slices(space, comparable)
    study = optuna.create_study()
    study.add_trials(importances._trials(space, comparable))
    figure = json.loads(optuna.visualization.plot_slice(study).to_json())
    assert [drawn.name for drawn in slices] == ["kind", "x"]
    for drawn, trace, axis in zip(slices, figure["data"], ("xaxis", "xaxis2"), strict=True):
        expected = list(zip(trace["x"], trace["y"], strict=True))
        if drawn.choices:  # which Optuna sorts
            assert sorted((repr(value), result) for value, result in drawn.points) == sorted(expected)
        else:
            assert list(drawn.points) == expected
        assert (figure["layout"][axis].get("type") == "category") == (drawn.choices is not None)
    assert importances.slices(space, importances.comparable_results(history(1))) == ()


def test_importances_are_those_of_a_study_in_a_storage_and_need_none(space, monkeypatch):
    comparable = importances.comparable_results(history(20))
    trials = importances._trials(space, comparable)
    values = np.array([trial.value for trial in trials])[::-1]
    revalued = []
    for trial, value in zip(trials, values, strict=True):
        revalued.append(create_trial(value=value, params=trial.params, distributions=trial.distributions))
    study = optuna.create_study()
    study.add_trials(revalued)
    expected = PedAnovaImportanceEvaluator(target_quantile=0.25).evaluate(study)
    monkeypatch.delattr(optuna, "create_study")  # each would copy all trials, and there are 81
    found = importances._divergences(trials, values, list(expected), 0.25)
    assert dict(zip(expected, found.tolist(), strict=True)) == expected
    assert [trial.value for trial in trials] == values[::-1].tolist(), "the trials are as they were"
    assert importances.importances(space, comparable).knobs
