"""What people ask of a search, answered on a table: how far from the best after so many trainings, and at its end."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest

from search.simulation import __main__ as command
from search.simulation import anytime, benchmark_table, comparison, peers, transfer
from search.simulation.anytime import Course, Question
from search.simulation.simulator import Method
from tests.search.simulation.test_simulator import HEAD, rows, written

FULL = Method("in full", "none", "random")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    curves = list(rows(24))
    worst = max(curves, key=lambda row: row["rungs"][-1]["value"])
    folder = tmp_path_factory.mktemp("tables")
    return written(folder / "toy.jsonl", [{**HEAD, "default": worst["configuration"]}, *curves])


@pytest.fixture(scope="module")
def table(file):
    return benchmark_table.read(file)


def test_a_course_by_hand():
    course = Course(((1.0, 0.5), (2.5, 0.2), (4.0, 0.1)), given=0.5)
    assert [course.after(trainings) for trainings in (0.5, 1, 2, 3, 16)] == [math.inf, 0.5, 0.5, 0.2, 0.1]
    assert (course.cost, course.end) == (4.0, 0.1)
    assert anytime.percentile_90(range(1, 11)) == 9
    assert anytime.percentile_90([3.0]) == 3.0


def test_training_all_in_full_costs_what_it_costs_and_only_gets_better(table):
    for workers in (1, 4):
        (study,) = anytime.courses(table, FULL, Question(8, workers, False), [0])
        assert study.cost == pytest.approx(8.0)
        excesses = [excess for _, excess in study.results]
        assert excesses == sorted(excesses, reverse=True)
    (all_of_it,) = anytime.courses(table, FULL, Question(24, 1, False), [1])
    assert all_of_it.end == 0.0


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_study_never_ends_below_the_recipe_that_it_was_given_nor_above_its_plan(table, workers):
    question = Question(12, workers, True)
    studies = anytime.courses(table, comparison.own_method(), question, range(3))
    worst = max(table.full_value(curve) for curve in table.curves) / table.full_value(table.best) - 1.0
    for study in studies:
        assert study.given == pytest.approx(worst)
        assert study.end <= study.given
        assert study.cost < 0.6 * 12
    assert studies == anytime.courses(table, comparison.own_method(), question, range(3)), "equal seeds, equal studies"


def test_the_command_answers_for_every_table_and_draws_it(file, tmp_path, capsys):
    other = written(tmp_path / "other.jsonl", [{**HEAD, "study": "other"}, *rows(8, seed=1)])
    picture = tmp_path / "answers.svg"
    arguments = [str(file), str(other), "--seeds", "2", "--trials", "4", "--workers", "2", "--own"]
    assert command.main([*arguments, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("a study of 4, 2 workers ") == 2, "both tables"
    assert printed.count("a study of 4, 2 workers, default recipe given") == 1, "of the one that has one"
    drawn = sorted(path.name for path in tmp_path.glob("answers-*.svg"))
    assert drawn == ["answers-other-4-2.svg", "answers-toy-4-2-given.svg", "answers-toy-4-2.svg"]
    assert command.main([*arguments, "--plot", str(tmp_path / "answers.doc")]) == 2
    assert "--plot" in capsys.readouterr().err


def test_what_a_study_on_another_table_knows_is_simulated_too(file, tmp_path, capsys):
    """The other table's learning rates count as factors: there the best is at ten times its own center."""
    head = {**HEAD, "study": "other", "parameters": 1e6, "seconds": 600.0}
    head["centers"] = {"learning_rate": {"divisors": {"[]": 1e-5}, "depends": [], "is_factor": True}}
    other = written(tmp_path / "other.jsonl", [head, *rows(40, seed=1)])
    toy = written(tmp_path / "toy.jsonl", [{**head, "study": "toy"}, *rows(24)])
    arguments = [str(toy), "--known", str(other), "--known-trials", "8", "--reversed"]
    arguments += ["--own", "--seeds", "2", "--trials", "6", "--given", "no"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    names = [line[:44].strip() for line in printed.splitlines()[2:]]
    assert names == ["tmsearch", "tmsearch, knows other", "tmsearch, knows other, reversed"]
    assert command.main(arguments) == 0
    assert capsys.readouterr().out == printed, "equal seeds, equal studies"
    (earlier,) = (
        transfer.informed_method([benchmark_table.read(other)], 8).earlier(benchmark_table.read(toy), 0, False).studies
    )
    assert earlier.likeness == 1.0
    best = earlier.drawn[min(range(len(earlier.finals)), key=lambda index: earlier.finals[index])]
    assert 1.0 < best["learning_rate"] < 100.0


def test_a_table_whose_default_lacks_a_knob_is_one_line(file, tmp_path, capsys):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    del lines[0]["default"]["layers"]
    assert command.main([str(written(tmp_path / "broken.jsonl", lines))]) == 2
    assert "broken.jsonl: line 1: no 'layers'" in capsys.readouterr().err


@pytest.mark.parametrize("method", peers.methods(), ids=lambda method: method.sampler)
def test_every_peer_runs_in_the_same_replay(table, method):
    trials = 4 if method.sampler == "gp" else 13  # it takes a second a draw
    question = Question(trials, 2, True)
    (study,) = anytime.courses(table, method, question, [0])
    assert 0.0 <= study.end <= study.given
    assert (study,) == tuple(anytime.courses(table, dataclasses.replace(method), question, [0]))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--reversed"], "--reversed: says how wrong tables are known, and none is; give --known OTHER, too"),
        (["--known-trials", "0"], "--known-trials 0: give at least 1"),
        (["--trials", "4", "-1"], "--trials -1: give at least 1"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
    ],
)
def test_a_mistake_is_one_line(file, capsys, options, problem):
    assert command.main([str(file), *options]) == 2
    assert capsys.readouterr().err == f"{problem}\n"


def test_a_reader_that_has_seen_enough_is_no_error(file):
    program = [sys.executable, "-m", "search.simulation", str(file), "--own", "--seeds", "1", "--trials", "4"]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")
