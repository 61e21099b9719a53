"""Space files: what they hold, their snapshots and fingerprints, and the ones that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from search.errors import UserError
from search.space import search_space
from search.space.search_space import Budget, Choice, FloatRange, IntRange
from tests.support.toy_space import FACTOR, GOOD, TRAIN, load_text, mistake

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_good_file():
    space = load_text(GOOD)
    assert space.study == "toy"
    assert space.data == {"dataset": "demo", "test": 0.2}
    assert space.budget == Budget(80, (20, 40, 80), spend="auto")
    assert space.train == {"adapters": 0}
    assert space.search == {
        "model": Choice(("big", "small")),
        "learning_rate": FloatRange(1e-6, 1e-3, log=True),
        "warmup_steps": IntRange(0, 20, step=5),
        "gain": Choice((True, "none")),
    }
    assert space.start == ({"model": "big", "learning_rate": 5e-6},)
    assert space.source == "s.yaml"


@pytest.mark.parametrize(
    ("given", "spend"),
    [
        ("", "auto"),
        ("spend: auto, ", "auto"),
        ("spend: 0.4, ", 0.4),
        ("eta: 4, ", None),
        ("max_full: 1, ", None),
        ("strategy: bracket, ", None),
    ],
)
def test_what_a_study_spends_is_planned_unless_the_file_says_otherwise(given, spend):
    budget = load_text(GOOD.replace("rungs:", f"{given}rungs:")).budget
    assert budget.spend == spend
    assert Budget.from_json(json.loads(json.dumps(budget.to_json())), "toy") == budget
    assert budget.scheduler_config.is_planned is (spend is not None)


def test_earlier_studies_are_switched_off_by_one_word_which_the_fingerprint_has():
    space = load_text(GOOD)
    assert space.budget.learns_from_earlier
    assert "earlier" not in space.budget.to_json(), "studies of before keep their fingerprint"
    off = load_text(GOOD.replace("rungs:", "earlier: off, rungs:"))
    assert not off.budget.learns_from_earlier
    assert Budget.from_json(json.loads(json.dumps(off.budget.to_json())), "toy") == off.budget
    assert search_space.differences(space, off) == ["budget.earlier: was not given, is false"]
    assert not load_text(GOOD.replace("rungs:", "sampler: tpe, rungs:")).budget.learns_from_earlier


def test_a_study_of_an_older_version_goes_on_without_a_plan():
    space = load_text(GOOD)
    older = space.to_json()
    del older["budget"]["spend"]  # as 0.1.0 wrote it
    kept = search_space.Space.from_json(older)
    assert kept.budget.spend is None
    assert space.with_budget_of(kept).fingerprint() == kept.fingerprint()
    assert space.with_budget_of(space) == space
    share = load_text(GOOD.replace("rungs:", "spend: 0.4, rungs:"))
    assert search_space.differences(kept, share.with_budget_of(kept)) == ["budget.spend: was not given, is 0.4"]


@pytest.mark.parametrize(
    ("new", "key", "value"),
    [
        ("batch_size: 8.0", "batch_size", 8),
        ("batch_size: '8'", "batch_size", 8),
        ("batch_size: 1e1", "batch_size", 10),
        ("batch_size: 010", "batch_size", 10),
        ("dropout: 0", "dropout", 0.0),
        ("dropout: '1e-1'", "dropout", 0.1),
        ("freeze: yes", "freeze", True),
        ("gain: off", "gain", False),
        ("gain: peak", "gain", "peak"),
        ("seconds: null", "seconds", None),
        ("seconds:", "seconds", None),
    ],
)
def test_values_take_the_knobs_own_type(new, key, value):
    text = GOOD.replace("adapters: 0", new).replace("  gain: [true, none]\n", "")
    space = load_text(text).train[key]
    assert space == value
    assert type(space) is type(value)


def test_a_language_may_be_no():
    assert load_text(GOOD.replace("test: 0.2", "language: no")).data["language"] == "no"


def test_numbers_in_lists_may_be_written_with_an_exponent():
    space = load_text(GOOD.replace("gain: [true, none]", "dropout: [1e-2, 1E-1, 0]"))
    assert space.search["dropout"] == Choice((0.01, 0.1, 0.0))


def test_budget_defaults():
    space = load_text(GOOD.replace(", rungs: [20, 40, 80]", "").replace("80", "800"))
    assert space.budget == Budget(800, (100, 200, 400, 800), spend="auto")
    assert load_text(GOOD.replace("80, rungs: [20, 40, 80]", "1")).budget.rungs == (1,)


def test_a_factor_is_resolved_on_the_models_own_centre():
    space = load_text(FACTOR)
    drawn = {"model": "small", "learning_rate": 2.0, "warmup_steps": 5, "gain": True}
    assert space.resolve(drawn, TRAIN) == {**drawn, "learning_rate": 8e-5, "adapters": 0}
    assert space.drawn_from_start(space.start[0], TRAIN) == {"model": "big", "learning_rate": 0.5}
    for rate in (3e-6, 7e-6, 6e-5):
        entry = {"model": "big", "learning_rate": rate}
        assert space.resolve(space.drawn_from_start(entry, TRAIN), TRAIN)["learning_rate"] == rate


def test_a_fixed_knob_moves_the_centre():
    space = load_text(FACTOR.replace("adapters: 0", "adapters: 8").replace("high: 6", "high: 2").replace("5e-6", "0.5"))
    assert space.resolve({"model": "big", "learning_rate": 2.0}, TRAIN)["learning_rate"] == 1.0


def test_a_start_factor_needs_what_its_centre_depends_on():
    line = mistake(FACTOR.replace("model: big, ", ""))
    assert "start[0].learning_rate: its factor depends on model; add it to the entry" in line
    line = mistake(FACTOR.replace("5e-6", "5e-4"))
    assert "start[0].learning_rate: 50, as a factor on the recommended value, is outside of 0.3 to 6" in line


def test_every_combination_is_asked_for_its_centre():
    # Only small without adapters has no centre, and small is the second choice of two.
    text = FACTOR.replace("small", "unknown").replace("adapters: 0", "dropout: 0")
    text = text.replace("gain: [true, none]", "adapters: [8, 0]").replace("high: 6", "high: 1.5")
    assert "search.learning_rate.times: 'unknown'" in mistake(text.split("start:")[0])


def test_a_snapshot_gives_the_same_space():
    for text in (GOOD, FACTOR):
        space = load_text(text)
        again = search_space.Space.from_json(json.loads(json.dumps(space.to_json())))
        assert again == space
        assert again.fingerprint() == space.fingerprint()
        assert search_space.differences(space, again) == []
        assert type(again.search["learning_rate"].low) is float
    with pytest.raises(UserError, match="another version"):
        search_space.Space.from_json({**space.to_json(), "format": 99})


@pytest.mark.parametrize(
    ("old", "line"),
    [
        ({"rungs": [80], "rung_seconds": [30.0, 60.0]}, "toy: budget.rungs: this study's rungs are in seconds"),
        ({"strategy": "hyperband"}, "toy: budget.strategy: hyperband was removed; start a new study with optuna-hyper"),
        ({"strategy": "median"}, "toy: budget.strategy: median was removed; start a new study with optuna-median"),
    ],
)
def test_a_study_of_what_was_removed_is_refused_in_one_line(old, line):
    snapshot = load_text(GOOD).to_json()
    snapshot["budget"] |= old
    with pytest.raises(UserError) as caught:
        search_space.Space.from_json(snapshot)
    assert str(caught.value).startswith(line)
    assert str(caught.value).isprintable()


def test_the_fingerprint_is_of_what_changes_a_search():
    space = load_text(GOOD)
    head, tail = GOOD.split("  model: [big, small]\n")
    moved = head + tail.replace("start:", "  model: [big, small]\nstart:").replace("toy", "other")
    assert load_text(moved).fingerprint() == space.fingerprint()
    assert list(load_text(moved).search) == list(space.search)
    assert replace(space, study="x", source="y").fingerprint() == space.fingerprint()
    for old, new in [
        ("test: 0.2", "test: 0.25"),
        ("rungs: [20", "rungs: [10"),
        ("adapters: 0", "adapters: 1"),
        ("[big, small]", "[small, big]"),
        ("step: 5", "step: 10"),
        ("1e-6", "2e-6"),
        ("rate: 5e-6", "rate: 6e-6"),
    ]:
        assert load_text(GOOD.replace(old, new)).fingerprint() != space.fingerprint(), old


def test_differences_in_words():
    other = GOOD.replace("1e-6", "2e-6").replace("adapters: 0", "dropout: 0").replace("[20, 40, 80]", "[40, 80]")
    assert search_space.differences(load_text(GOOD), load_text(other)) == [
        "budget.rungs: was [20, 40, 80], is [40, 80]",
        "train.adapters: was 0, is not given",
        'search.learning_rate: was {"low": 1e-06, "high": 0.001, "log": true}, '
        'is {"low": 2e-06, "high": 0.001, "log": true}',
        "train.dropout: was not given, is 0.0",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_space_loads(path):
    from tmsearch.cli.services.knobs import DATA as data
    from tmsearch.cli.services.knobs import TRAIN as train
    from tmsearch.config import DataConfig, TrainConfig

    space = search_space.load(path, train=train, data=data)
    assert space.study == path.stem
    assert space.start
    for entry in space.start:
        params = space.resolve(space.drawn_from_start(entry, train), train)
        assert params == {**space.train, **entry}
        TrainConfig(**params, max_steps=space.budget.max_steps)
    DataConfig(**space.data)
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and line.strip().split(":")[0] in space.search and not line.startswith("   "):
            above = lines[number - 1].strip()
            assert "#" in line or above.startswith(("#", "spec_time_masks")), f"{path.name}: {line} has no source"


def test_the_shipped_spaces_are_those_of_the_design():
    names = {path.stem for path in (ROOT / "spaces").glob("*.yaml")}
    assert names >= {"demo", "tiny", "base", "small", "large_v3", "sizes"}


def test_reading_a_space_imports_nothing_heavy():
    heavy = "torch", "optuna", "sqlalchemy", "numpy", "transformers", "tmsearch"
    code = f"import sys, search.space.search_space; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
