"""What earlier studies know: recorded once, in neutral terms, used from the first draws, overruled by own values."""

import dataclasses
import json
import math
import statistics

import pytest

from search.records import Configuration, Rung
from search.samplers.earlier import FACT, Center, EarlierStudies, EarlierStudy, likeness
from search.samplers.earlier_studies import of_trials
from search.samplers.knowledge import Knowledge, of_facts
from search.samplers.sampler import GUIDED_FROM, draw
from search.space.distributions import Choice, FloatRange, IntRange
from tests.support.toy_study import told, toy_space, toy_storage, toy_study, work

SPACE = {
    "learning_rate": FloatRange(1e-6, 1e-3, log=True),
    "warmup_steps": IntRange(0, 100, step=10),
    "model": Choice(("tiny", "base")),
}
CENTERS = {
    "learning_rate": Center({'["tiny"]': 4e-5, '["base"]': 2e-5}, ("model",), is_factor=True),
    "warmup_steps": Center({"[]": 1000.0}),
}
BEST_FACTOR = 5.0


def earlier_study(likeness=1.0, best=BEST_FACTOR, name="before"):
    """Of 16 configurations whose best rate is `best` times the recommended one."""
    rows = []
    finals = []
    for index in range(16):
        factor = 0.05 * 1000.0 ** (index / 15)
        rows.append({"learning_rate": factor, "warmup_steps": 0.01 * (index % 5)})
        finals.append(0.5 * abs(math.log10(factor / best)))
    rows.append({"learning_rate": best, "warmup_steps": 0.05})
    finals.append(-0.1)
    return EarlierStudy(name, likeness, tuple(rows), tuple(finals), (0.0,) * len(rows))


def known(*studies):
    return Knowledge(EarlierStudies(studies or (earlier_study(),), CENTERS), SPACE)


def at(number, history=(), knowledge=None, seed=0):
    return draw(SPACE, history, seed=seed, number=number, last_rung=4, knowledge=knowledge)


def own_trials(count, best_rate):
    trials = []
    for number in range(count):
        drawn = at(number, seed=7)
        value = 0.5 + abs(math.log10(drawn["learning_rate"] / best_rate))
        trials.append(Configuration(number, "sampled", drawn, drawn, "finished", rungs=(Rung(4, value, {}),)))
    return tuple(trials)


def test_it_is_kept_as_plain_values():
    studies = EarlierStudies((earlier_study(), earlier_study(0.3, name="older")), CENTERS)
    assert EarlierStudies.from_json(json.loads(json.dumps(studies.to_json()))) == studies
    assert studies.line() == "known from earlier studies: 34 configurations (17 of before, 17 of older)"
    assert of_facts({"data": {}}, SPACE) is None, "a study of before knows nothing"
    facts = {FACT: studies.to_json()}
    assert at(0, knowledge=of_facts(facts, SPACE)) == at(0, knowledge=known(earlier_study()))


def test_likeness_is_a_third_for_each_factor_of_ten():
    assert likeness([1.0, 1.0]) == 1.0
    assert likeness([10.0, 0.1]) == pytest.approx(math.exp(-2))
    assert likeness([None, 1.0]) == pytest.approx(math.exp(-1)), "unknown: a factor of ten"


def test_the_first_draw_is_the_best_of_before_at_this_models_own_rate():
    drawn = at(0, knowledge=known())
    center = {"tiny": 4e-5, "base": 2e-5}[drawn["model"]]
    assert drawn["model"] == at(0)["model"], "what it does not share stays as it was"
    assert drawn["learning_rate"] == pytest.approx(BEST_FACTOR * center)
    assert drawn["warmup_steps"] == 50, "a twentieth of 1,000 steps"


def test_the_best_in_or_near_the_ranges_is_tried_and_none_that_is_far_outside():
    """The range of the rate is three decades wide, and a quarter of that may be cut off."""
    near = at(0, knowledge=known(earlier_study(best=100.0)))
    assert near["learning_rate"] == pytest.approx(1e-3)
    assert near["warmup_steps"] == 50, "it is the best one"
    far = at(0, knowledge=known(earlier_study(best=1e4)))
    assert far["warmup_steps"] != 50, "the next best in or near the ranges"


def test_a_study_that_is_less_alike_is_not_tried_itself():
    for number in range(GUIDED_FROM):
        assert at(number, knowledge=known(earlier_study(likeness=0.3))) == at(number)


def test_most_of_the_first_draws_stay_uniform():
    same = [at(number, knowledge=known()) == at(number) for number in range(GUIDED_FROM)]
    assert same == [False, True, False, True, True, True, True, True]


def test_several_studies_take_turns_the_most_alike_first():
    studies = (earlier_study(best=2.0), earlier_study(0.5, best=0.2, name="older"))
    rates = []
    for number in (0, 2):
        drawn = at(number, knowledge=known(*studies))
        rates.append(drawn["learning_rate"] / CENTERS["learning_rate"].of(drawn))
    assert rates == pytest.approx([2.0, 0.2])


def test_with_a_recipe_given_it_is_trained_first_and_stayed_near_as_before():
    given = {"learning_rate": 1e-5, "warmup_steps": 20, "model": "base"}
    start = Configuration(0, "start", given, given, "finished", rungs=(Rung(4, 0.5, {}),))
    for number in (1, 2, 3):
        assert at(number, (start,), known()) == at(number, (start,))
    assert at(4, (start,), known())["warmup_steps"] == 50


def test_own_values_overrule_what_is_known():
    """Own values say the opposite: what is known moves no draw far away from where they are best."""
    trials = own_trials(16, best_rate=1e-6)

    def distance(knowledge):
        rates = [at(16, trials, knowledge, seed)["learning_rate"] for seed in range(12)]
        return statistics.mean(math.log10(rate / 1e-6) for rate in rates)

    assert distance(known(earlier_study(best=10.0))) < distance(None) + 0.3


def test_where_own_values_agree_it_points_to_the_best():
    """After a few values that tell little, draws are nearer to what was best before."""
    trials = own_trials(4, best_rate=BEST_FACTOR * 3e-5)

    def distance(knowledge):
        distances = []
        for seed in range(16):
            drawn = at(8, trials, knowledge, seed)
            best = BEST_FACTOR * CENTERS["learning_rate"].of(drawn)
            distances.append(abs(math.log10(drawn["learning_rate"] / best)))
        return statistics.mean(distances)

    assert distance(known()) < 0.8 * distance(None)


def test_too_few_values_or_equal_ones_are_no_study():
    def row(trial):
        return {"learning_rate": 1.0}

    trials = own_trials(4, best_rate=1e-4)
    assert of_trials("before", 1.0, trials[:3], 4, row) is None
    assert len(of_trials("before", 1.0, trials, 4, row).drawn) == 4
    equal = [dataclasses.replace(trial, rungs=(Rung(4, 0.5, {}),)) for trial in trials]
    assert of_trials("before", 1.0, equal, 4, row) is None
    bad = dataclasses.replace(trials[0], rungs=(), state="failed", failure="diverged")
    assert len(of_trials("before", 1.0, (*trials, bad), 4, row).finals) == 5, "what diverged is bad"
    crashed = dataclasses.replace(bad, failure="crashed")
    assert len(of_trials("before", 1.0, (*trials, crashed), 4, row).finals) == 4, "a crash says nothing"


def test_of_a_long_study_the_most_telling_are_kept():
    trials = own_trials(100, best_rate=1e-4)
    study = of_trials("before", 1.0, trials, 4, lambda trial: {"learning_rate": 1.0})
    assert len(study.drawn) == 64
    assert min(study.finals) == pytest.approx(min(math.log(trial.value) for trial in trials), abs=1e-6)


def test_a_worker_draws_by_what_was_recorded_with_its_study(tmp_path):
    from search import study

    space = dataclasses.replace(toy_space(tmp_path), start=())
    rows = tuple({"x": float(x), "kind": "fancy"} for x in range(1, 6))
    before = EarlierStudy("before", 1.0, rows, (0.4, 0.1, 0.2, 0.3, 0.5), (0.0,) * 5)
    facts = {"data": {"clips": 1}, FACT: EarlierStudies((before,), {}).to_json()}
    histories = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        ledger = study.create(toy_storage(folder), space, seed=0, trials=6, version="test", facts=facts)
        if folder.name == "b":  # another study in the storage changes nothing
            toy_study(ledger.storage, dataclasses.replace(space, study="other"), trials=3)
        work(ledger, space, folder / "toy")
        histories.append(told(ledger))
    assert histories[0][0][1] == {"x": 2.0, "kind": "fancy"}
    assert histories[0] == histories[1]
