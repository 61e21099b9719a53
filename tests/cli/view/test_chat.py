"""A study in a few words: what is in them, what never is, and how long they are."""

import dataclasses

import pytest

from search.study import summarize
from tests.support.study_builder import claimed_study
from tmsearch.cli.view.chat import LONGEST, chat_summary, fitting_lines, standing


@pytest.fixture(scope="module")
def midway(tmp_path_factory):
    return summarize(claimed_study(tmp_path_factory.mktemp("midway"), 20, results=12)[0])


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return summarize(claimed_study(tmp_path_factory.mktemp("ended"), 20)[0])


def test_counts_the_best_its_cost_and_its_knobs(ended):
    first, counts, best, cost, knobs = chat_summary(ended, "has ended", price=36.0).splitlines()
    assert first == "study many: has ended"
    assert counts.startswith("20 configurations: ")
    assert "finished" in counts
    assert "pruned" in counts
    assert best.startswith(f"best: trial {ended.best.number}, WER {ended.best.value:.3f} [")
    assert f"about {ended.spent / 100:.2f} dollars at 36 an hour" in cost
    assert knobs.startswith("model=")
    assert "provisional" not in best


def test_a_study_under_way_says_what_is_left_and_that_its_best_is_provisional(midway, ended):
    words = standing(midway)
    assert " of 20 configurations have a result, about " in words
    assert words.endswith(" left")
    assert chat_summary(midway, words).splitlines()[2].endswith(", provisional")
    assert standing(dataclasses.replace(midway, workers=())).endswith(", nobody works on it now")
    assert standing(ended) == "has ended"


def test_a_study_without_a_result_has_no_best(midway):
    empty = dataclasses.replace(midway, history=())
    assert chat_summary(empty, "failed: no disk") == "study many: failed: no disk\n0 configurations: none started"


def test_whatever_is_in_it_it_fits_and_calls_nobody(midway):
    record = dataclasses.replace(midway.record, name="<!channel>@all\n" * 40)
    text = chat_summary(dataclasses.replace(midway, record=record), "failed: " + "x" * 2000)
    assert len(text) <= LONGEST
    assert not set("<>@") & set(text)
    assert text.startswith("study (!channel)(at)all")
    assert fitting_lines(["a" * 150] * 9 + ["end"]).splitlines()[-1] == "end", "a line without room is left out"
