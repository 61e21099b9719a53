"""Sampling is a pure function of history, seed and number."""

import math
import statistics
import subprocess
import sys

from search.records import Configuration, Rung
from search.samplers import gp, sampler
from search.samplers.optuna_space import to_distributions
from search.samplers.sampler import draw, frozen_trial, halton_point
from search.space import encoding
from search.space.distributions import Choice, FloatRange, IntRange

SPACE = {
    "learning_rate": FloatRange(1e-6, 1e-3, log=True),
    "warmup_steps": IntRange(0, 100, step=10),
    "model": Choice(("tiny", "base")),
}


def history(count, good=1e-4):
    trials = []
    for number in range(count):
        drawn = draw(SPACE, (), seed=1, number=number, last_rung=4)
        value = abs(math.log10(drawn["learning_rate"] / good))
        rungs = Rung(2, value + 1, {}), Rung(4, value, {})
        trials.append(Configuration(number, "sampled", drawn, drawn, "finished", rungs=rungs))
    return tuple(trials)


def test_draws_stay_inside_and_repeat():
    for number in range(30):
        drawn = draw(SPACE, (), seed=0, number=number, last_rung=4)
        assert 1e-6 <= drawn["learning_rate"] <= 1e-3
        assert drawn["warmup_steps"] % 10 == 0
        assert 0 <= drawn["warmup_steps"] <= 100
        assert drawn["model"] in ("tiny", "base")
        assert drawn == draw(SPACE, (), seed=0, number=number, last_rung=4)
    assert len({str(draw(SPACE, (), seed=0, number=number, last_rung=4)) for number in range(30)}) > 25
    assert draw(SPACE, (), seed=0, number=1, last_rung=4) != draw(SPACE, (), seed=1, number=1, last_rung=4)


def test_another_process_draws_the_same_whatever_the_order_of_keys():
    drawn = draw(SPACE, history(15), seed=3, number=15, last_rung=4)
    text = (
        "from tests.search.samplers.test_sampler import *\n"
        "other = dict(reversed(SPACE.items()))\n"
        "print(sorted(draw(other, history(15), seed=3, number=15, last_rung=4).items()))"
    )
    process = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == str(sorted(drawn.items()))
    assert process.stderr == "", "no line of Optuna's"


def test_every_other_early_draw_lies_around_a_recipe_that_was_given_first():
    """A quarter of each range is the deviation; quasi-random draws have .29 of it, and do not know the recipe."""
    given = {"learning_rate": 3e-5, "warmup_steps": 50, "model": "base"}
    start = (Configuration(0, "start", given, given, "finished", rungs=(Rung(4, 0.5, {}),)),)

    def offsets(number):
        """In parts of the range, which has three decades."""
        rates = [draw(SPACE, start, seed=seed, number=number, last_rung=4)["learning_rate"] for seed in range(200)]
        return [math.log10(rate / given["learning_rate"]) / 3 for rate in rates]

    for number in (1, 3):
        near = offsets(number)
        # Cut off at the ends, each two deviations away, it is a little less than .25.
        assert 0.20 < statistics.pstdev(near) < 0.27
        assert abs(statistics.mean(near)) < 3 * 0.25 / math.sqrt(200)
    assert offsets(2) != offsets(1)
    without = [draw(SPACE, (), seed=seed, number=2, last_rung=4) for seed in range(5)]
    assert [draw(SPACE, start, seed=seed, number=2, last_rung=4) for seed in range(5)] == without


def test_a_draw_near_a_recipe_is_made_only_where_it_is_taken(monkeypatch):
    moved = encoding.moved
    recipes = []

    def counted(search, values, spread, random):
        recipes.append(values)
        return moved(search, values, spread, random)

    monkeypatch.setattr(sampler.encoding, "moved", counted)
    given = {"learning_rate": 3e-5, "warmup_steps": 50, "model": "base"}
    start = Configuration(0, "start", given, given, "finished", rungs=(Rung(4, 0.5, {}),))
    lengths = []
    for number in range(1, 5):
        draw(SPACE, (start,), seed=0, number=number, last_rung=4)
        lengths.append(recipes.count(given))
    assert lengths == [1, 1, 2, 2], "every other one of the first; from the fourth on the model draws"
    partly = Configuration(0, "start", {"model": "base"}, {"model": "base"}, "queued")
    draw(SPACE, (partly,), seed=0, number=1, last_rung=4)
    assert recipes.count(given) == len(recipes) == 2, "a recipe of other knobs is none"


def test_given_values_are_kept_and_the_rest_is_sampled():
    drawn = draw(SPACE, (), seed=0, number=0, last_rung=4, given={"learning_rate": 5e-6, "model": "base"})
    assert (drawn["learning_rate"], drawn["model"]) == (5e-6, "base")
    assert set(drawn) == set(SPACE)


def test_the_model_learns_from_the_history():
    import statistics

    guided = [draw(SPACE, history(30), seed=seed, number=30, last_rung=4)["learning_rate"] for seed in range(20)]
    blind = [draw(SPACE, (), seed=seed, number=30, last_rung=4)["learning_rate"] for seed in range(20)]

    def distance(rates):
        import math

        return statistics.mean(abs(math.log10(rate / 1e-4)) for rate in rates)

    assert distance(guided) < 0.65 * distance(blind)


def test_halton_points_are_scipys():
    import numpy as np
    from scipy.stats import qmc

    for dimensions, seed in ((1, 0), (4, 7), (12, 2**32 - 1)):
        scipy_points = qmc.Halton(dimensions, rng=seed).random(70)
        points = np.stack([halton_point(dimensions, number, seed) for number in range(70)])
        assert np.allclose(points, scipy_points, atol=1e-14)


def test_what_the_sampler_is_told():
    space = to_distributions(SPACE)
    drawn = {"learning_rate": 1e-4, "warmup_steps": 10, "model": "tiny"}
    rungs = (Rung(2, 0.5, {}),)
    paused = frozen_trial(Configuration(0, "sampled", drawn, drawn, "paused", rungs=rungs), space, 2.0, 4)
    assert paused.state.name == "PRUNED"
    assert paused.intermediate_values == {2: 0.5}
    broken = Configuration(0, "sampled", drawn, drawn, "failed", failure="diverged")
    assert frozen_trial(broken, space, 2.0, 4).intermediate_values == {1: 2.0}, "as bad as the worst"
    crashed = Configuration(0, "sampled", drawn, drawn, "failed", failure="crashed")
    assert frozen_trial(crashed, space, 2.0, 4) is None, "a crash says nothing of the parameters"
    outside = {**drawn, "learning_rate": 1.0}
    assert frozen_trial(Configuration(0, "added", outside, outside, "finished", rungs=rungs), space, 2.0, 4) is None
    fresh = Configuration(0, "sampled", drawn, drawn, "running")
    assert frozen_trial(fresh, space, 2.0, 4) is None


def test_a_guided_draw_does_not_grow_with_the_third_power_of_the_trials(monkeypatch):
    held = []
    condition = gp._condition

    def counted(data, lengths, noise):
        held.append(len(data.values))
        return condition(data, lengths, noise)

    monkeypatch.setattr(gp, "_condition", counted)
    trials = history(700)
    drawn = draw(SPACE, trials, seed=1, number=700, last_rung=4, sampler="guided")
    assert max(held) == 512
    assert abs(drawn["learning_rate"] - 1e-4) < 1e-4, "the best are among them"
