"""The curves as a picture: axes for any values, nothing of a person's text as markup."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from search.records import Configuration, Rung, StudyRecord
from search.study import Summary
from tmsearch.api.view import curves

SPACE = {"search": {"learning_rate": {}}, "train": {}, "budget": {"max_steps": 80, "rungs": [20, 40, 80]}}
RECORD = StudyRecord("<s>", SPACE, "", 0, 2, False, "", 0.0)


def trial(number, values, **more):
    rungs = tuple(Rung(step, value, {}) for step, value in zip((20, 40, 80), values, strict=False))
    return Configuration(number, "sampled", {}, {"model": "<m>", "learning_rate": 1e-4}, "paused", rungs=rungs, **more)


def summary(*trials):
    return Summary(RECORD, trials, {})


@pytest.mark.parametrize("top", [1e-3, 0.011, 0.0999, 0.1, 0.5, 0.82, 0.85, 1.0, 1.9, 2.1, 9.99, 150.0])
def test_any_values_have_four_to_nine_ticks(top):
    ticks = curves._ticks(top)
    assert 4 <= len(ticks) <= 9
    assert ticks[0] == 0
    assert ticks[-1] <= top


def test_the_picture_is_a_picture_of_every_curve_with_a_finite_value():
    drawn = summary(trial(0, (0.9, 0.5, 0.3)), trial(1, (0.8,)), trial(2, (float("nan"),)), trial(3, ()))
    picture = ElementTree.fromstring(curves.picture(drawn))
    lines = [element for element in picture.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    assert [len(line.attrib["points"].split()) for line in lines] == [1, 3]  # the best one is drawn last
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert texts[0] == "<s>: WER by step, 2 configurations; best: trial 0, 0.300"


def test_a_training_that_diverged_does_not_flatten_the_others():
    drawn = summary(*(trial(number, (0.9, 0.5)) for number in range(4)), trial(4, (30.0,)))
    assert curves._top(drawn) < 2


def test_what_was_trained_elsewhere_is_left_out():
    imported = dataclasses.replace(trial(0, (0.1,)), origin="imported")
    assert [line.number for line in curves._lines(summary(imported, trial(1, (0.8,))))] == [1]
    assert curves.picture(summary(imported)).startswith("<svg")
