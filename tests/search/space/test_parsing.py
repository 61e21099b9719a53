"""--set KEY=VALUE: what it changes in a space file, and the error about a mistake in it."""

from __future__ import annotations

import pytest

from search.errors import UserError
from search.space import search_space
from search.space.search_space import Budget, Choice, FloatRange, IntRange
from tests.support.toy_space import GOOD, TRAIN, load_text, mistake


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_set_changes_a_key_of_the_file():
    space = load_text(GOOD, "data.revision=abc", "budget.max_steps=60", "budget.rungs=[20, 60]", "study=other")
    assert space.data["revision"] == "abc"
    assert space.budget == Budget(60, (20, 60), spend="auto")
    assert space.study == "other"
    space = load_text(GOOD, "search.learning_rate.low=1e-7", "search.adapters={low: 1, high: 4}", "train.dropout=1e-1")
    assert space.search["learning_rate"] == FloatRange(1e-7, 1e-3, log=True)
    assert space.search["adapters"] == IntRange(1, 4)
    assert space.train == {"dropout": 0.1}


def test_set_of_a_bare_knob_fixes_it():
    space = load_text(GOOD, "learning_rate=1e-4")
    assert space.train == {"adapters": 0, "learning_rate": 1e-4}
    assert "learning_rate" not in space.search
    assert space.start == ({"model": "big"},)
    assert load_text(GOOD, "learning_rate=1e-4", "model=big").start == ()


def test_the_last_set_wins():
    space = load_text(GOOD, "dropout=0.1", "dropout=0.2", "learning_rate=1e-4", "search.learning_rate=[1e-5, 1e-4]")
    assert space.train["dropout"] == 0.2
    assert space.search["learning_rate"] == Choice((1e-5, 1e-4))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("lr=1", "--set lr: no such key; did you mean learning_rate?"),
        ("learning_rate=fast", "--set learning_rate: fast is not a number"),
        ("learning_rate=.nan", "--set learning_rate: NaN is not finite"),
        ("learning_rate", "--set learning_rate: no KEY=VALUE"),
        ("learning_rate=", "--set learning_rate: no value"),
        ("=1", "--set '=1': no KEY=VALUE"),
        ("max_steps=10", "--set max_steps: belongs to budget; say --set budget.max_steps=VALUE"),
        ("dataset=x", "--set dataset: belongs to data; say --set data.dataset=VALUE"),
        ("budget.max_steps=60", "--set budget.max_steps: the last of budget.rungs, 80, is past budget.max_steps, 60"),
        ("budget.rungs=[5m, 80]", "--set budget.rungs: [0]: 5m is a time; give optimizer steps"),
        ("budget.strategy=median", "--set budget.strategy: median was removed; write optuna-median or halving"),
        ("budget.rungs=[20, 90]", "--set budget.rungs: the last of budget.rungs, 90, is past"),
        ("search.learning_rate.low=1", "--set search.learning_rate.low: low 1 is above high 0.001"),
        ("search.learning_rate={low: 1}", "--set search.learning_rate: high: missing"),
        ("search.learning_rte.low=1", "--set search.learning_rte.low: no such knob; did you mean learning_rate?"),
        ("search.model.low=1", "--set search.model.low: search.model has no keys of its own"),
        ("data.revison=abc", "--set data.revison: no such key; did you mean revision?"),
        ("train.batch_size=x", "--set train.batch_size: x is not a number"),
        ("start=[{warmup_steps: 50}]", "--set start: [0].warmup_steps: 50 is outside of 0 to 20"),
        ("start.0=1", "--set start.0: start has no keys of its own"),
        ("study=a/b", "--set study: a/b cannot name a study"),
        ("data..x=1", "--set data..x: an empty name between dots"),
        ("batch_size=[1", "--set batch_size: line 1: not YAML"),
        ("batch_size=!!int 3", "--set batch_size: line 1: a YAML tag"),
        ("\x1b[31m=1", r"--set \x1b[31m: no such key"),
    ],
)
def test_a_mistaken_set_is_named(override, says):
    assert mistake(GOOD, override).startswith(says)


def test_of_values_given_by_hand_the_searched_knobs_are_named():
    """And not all knobs, most of which are refused."""
    searched = ("learning_rate", "gain")
    assert search_space.values(["gain=no"], TRAIN, searched=searched) == {"gain": False}
    for wrong, says in [
        ("x=1", "^add: x: no such knob; searched: learning_rate, gain$"),
        ("lr=1", r"^add: lr: no such knob; did you mean learning_rate\?$"),
        ("dropout=0", "^add: dropout: is not searched; searched: learning_rate, gain$"),
        ("max_steps=3", "^add: max_steps: is not searched; searched: learning_rate, gain$"),
    ]:
        with pytest.raises(UserError, match=says):
            search_space.values([wrong], TRAIN, searched=searched)


def test_values_given_by_hand():
    assert search_space.values(["learning_rate=1e-4", "gain=no", "model=big"], TRAIN) == {
        "learning_rate": 1e-4,
        "gain": False,
        "model": "big",
    }
    for wrong, says in [
        ("lr=1", "^add: lr: no such knob; did you mean learning_rate?"),
        ("max_steps=3", "^add: max_steps: belongs under budget"),
        ("dropout", "^add: dropout: no value; write dropout=VALUE"),
        ("dropout=[", "^add: dropout: line 1: not YAML"),
        ("dropout=2", "^add: dropout: 2.0 is too high"),
    ]:
        with pytest.raises(UserError, match=says):
            search_space.values([wrong], TRAIN)
