"""Searches on recorded curves: the real engine, in virtual time."""

import dataclasses
import json
import math
import random
import time

import pytest

from search.errors import UserError
from search.records import Rung
from search.simulation import __main__ as command
from search.simulation import benchmark_table, comparison, simulator
from search.simulation.benchmark_table import Curve
from search.simulation.simulator import Method, SimulatedSearch
from tests.support.toy_study import toy_space, toy_storage, toy_study, work

SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True},
    "layers": {"kind": "int", "low": 0, "high": 4},
    "kind": {"kind": "choice", "values": ["plain", "fancy"]},
}
HEAD = {"study": "toy", "rungs": [10, 20, 40, 80], "search": SPACE}


def rows(count=150, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        rate = 10 ** rng.uniform(-6, -2)
        drawn = {"learning_rate": rate, "layers": rng.randint(0, 4), "kind": rng.choice(["plain", "fancy"])}
        end = 0.2 + 0.1 * abs(math.log10(rate) + 4) + 0.02 * drawn["layers"] + rng.gauss(0, 0.005)
        recorded = []
        for step in HEAD["rungs"]:
            value = end + 5 / step + rng.gauss(0, 0.01)
            seconds = 1.0 if step == 10 else step / 20
            recorded.append({"step": step, "value": value, "seconds": seconds})
        yield {"configuration": drawn, "seed": 0, "rungs": recorded}


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return benchmark_table.read(written(tmp_path_factory.mktemp("table") / "toy.jsonl", [HEAD, *rows()]))


def test_a_table_says_what_it_holds(table):
    assert len(table.curves) == 150
    assert table.training_seconds == pytest.approx(8.0)
    assert table.full_value(table.best) == min(curve.rungs[-1].value for curve in table.curves)
    assert table.curves.index(table.best) in simulator.good_curves(table)


def test_a_segment_over_rungs_that_are_skipped_costs_all_of_its_steps(table):
    search = SimulatedSearch(table, Method("a", "none", "random", trials=3, rungs=(20, 80)), seed=0, workers=1)
    search.run(frozenset(), once=True)
    for trial in search.ledger.history():
        assert [rung.metrics["train_seconds"] for rung in trial.rungs] == [2.0, 6.0]
        assert trial.seconds == 8.0


def test_good_is_what_cannot_be_told_from_the_best(table):
    def ended(value, errors):
        return Curve({}, 0, (Rung(80, value, {"errors": errors}),))

    near, tied = ended(0.509, [9, 9, 9, 9]), ended(0.55, [1, 0, 2, 0])
    curves = (ended(0.50, [0, 1, 2, 0]), near, tied, ended(0.7, [2, 3, 4, 2]))
    assert simulator.good_curves(dataclasses.replace(table, curves=curves)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: "),
        ([HEAD], "no curve reaches the last rung, 80"),
        ([{**HEAD, "rungs": ["x"]}], "line 1: "),
        ([HEAD, {"configuration": {}, "rungs": []}], "line 2: no 'learning_rate'"),
        ([HEAD, {**next(rows()), "rungs": [{"step": 11, "value": 1, "seconds": 1}]}], "line 2: step 11 where rung 10"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path, lines, message):
    with pytest.raises(UserError, match=message) as caught:
        benchmark_table.read(written(tmp_path / "broken.jsonl", lines))
    assert "\n" not in str(caught.value)
    assert "broken.jsonl" in str(caught.value)


def test_a_study_becomes_a_table(tmp_path):
    space = toy_space(tmp_path, "none")
    ledger = toy_study(toy_storage(tmp_path), space, 4)
    work(ledger, space, tmp_path / "toy", diverge_at=9.0)
    file = tmp_path / "table.jsonl"
    file.write_text(benchmark_table.of_study(ledger))
    table = benchmark_table.read(file)
    assert table.rungs == (2, 4, 8)
    assert table.search == space.search
    assert [len(curve.rungs) for curve in table.curves] == [0, 3, 3, 3]
    assert table.curves[1].rungs[0].metrics == {"train_seconds": 1.5}


def test_costs_add_up_by_hand(table):
    method = Method("random", "none", "random")
    search = SimulatedSearch(table, method, seed=0, workers=1)
    result = search.run(frozenset(range(150)))
    assert (result.configurations, result.reached) == (1, True)
    assert result.cost == result.seconds == pytest.approx(8.0)
    everything = SimulatedSearch(table, method, seed=0, workers=1).run(frozenset())
    assert (everything.configurations, everything.reached) == (150, False)
    assert everything.cost == pytest.approx(150 * 8.0)
    many = SimulatedSearch(table, method, seed=0, workers=4).run(frozenset())
    assert many.cost == pytest.approx(150 * 8.0)
    assert many.seconds == pytest.approx(150 * 8.0 / 4, abs=8.0)


def outcome(search):
    return [(trial.number, trial.state, trial.curve) for trial in search.ledger.history()]


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_search_repeats_and_uses_each_curve_once(table, workers):
    table = dataclasses.replace(table, curves=table.curves[:60])
    good = simulator.good_curves(table)
    first, second = (SimulatedSearch(table, comparison.own_method(), 3, workers) for _ in range(2))
    assert first.run(good) == second.run(good)
    assert outcome(first) == outcome(second)
    assert len(set(first.taken.values())) == len(first.taken)


def test_promotion_and_guidance_beat_training_all_in_full(table):
    # A plan has an end; how soon one good configuration is trained in full is what the ladder without one is for.
    ladder = dataclasses.replace(comparison.own_method(name="ladder"), spend=None)
    methods = [comparison.own_method(), ladder, comparison.baseline_methods(table)[0]]
    summaries = simulator.costs(table, simulator.simulate(table, methods, range(8)))
    random_cost = summaries["random, in full"].median
    assert summaries["tmsearch"].reached == summaries["ladder"].reached == 8
    assert summaries["ladder"].median < random_cost / 2
    assert summaries["tmsearch"].median < random_cost * 2 / 3


def test_a_search_of_sixty_configurations_takes_seconds(table):
    began = time.perf_counter()
    sixty = dataclasses.replace(table, curves=table.curves[:60])
    assert SimulatedSearch(sixty, comparison.own_method(), 0, 4).run(frozenset()).configurations == 60
    assert time.perf_counter() - began < 10


def test_the_contest_prints_every_way(table, tmp_path, capsys):
    file = written(tmp_path / "toy.jsonl", [HEAD, *rows(20)])
    assert command.main([str(file), "--seeds", "2", "--workers", "1", "4", "--until-good"]) == 0
    printed = capsys.readouterr().out
    for method in (comparison.own_method(), *comparison.baseline_methods(table)):
        assert printed.count(f"{method.name} ") >= 2
    assert "first told a rate wrong by 30" in printed
    assert command.main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: cannot be read" in capsys.readouterr().err


def test_more_workers_take_less_time_on_the_clock(table, tmp_path, capsys):
    everything = Method("all in full", "none", "random")
    single, four, many = simulator.scaling(table, everything, range(3), 40, (1, 4, 64))
    assert (single.speedup, single.efficiency) == (1.0, 1.0)
    assert single.seconds == single.cost == many.cost == pytest.approx(40 * 8.0)
    assert four.seconds == pytest.approx(10 * 8.0), "forty equal trainings on four workers leave nobody idle"
    assert (many.seconds, many.speedup) == (pytest.approx(8.0), pytest.approx(40.0))
    file = written(tmp_path / "toy.jsonl", [HEAD, *rows(20)])
    assert command.main([str(file), "--seeds", "2", "--scaling", "--trials", "15"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "a study of 15, to its end" in printed[1]
    assert [line.split()[0] for line in printed[2:]] == ["1", "2", "4", "8", "16", "32", "64"]
