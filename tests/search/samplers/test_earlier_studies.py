"""What is gathered of a storage's earlier studies for a new one."""

import dataclasses
import math

import pytest

from search import study
from search.records import Rung
from search.samplers.earlier_studies import gather
from search.space import search_space
from search.storage import entries
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tests.support.toy_space import DATA, GOOD, TRAIN


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return open_storage(f"sqlite:///{tmp_path}/db.sqlite")


def space(name="new", *changes, text=GOOD):
    for old, new in (("study: toy", f"study: {name}"), *changes):
        assert old in text
        text = text.replace(old, new)
    import yaml

    return search_space.parse(yaml.safe_load(text), "s.yaml", train=TRAIN, data=DATA)


def row(index, **changes):
    return {"model": "big", "learning_rate": 1e-5 * 2.0**index, "warmup_steps": 5 * index, "gain": True, **changes}


def trained(storage, earlier, rows, origin="sampled", **metrics):
    """A study of configurations with these parameters, each a tenth worse than the one before."""
    ledger = study.create(storage, earlier, seed=0, trials=len(rows), version="test", facts={"hours": 2.0})
    last = earlier.budget.max_steps
    entered = []
    for index, params in enumerate(rows):
        rungs = (Rung(last, 0.5 * 1.1**index, metrics),)
        entered.append(entries.Entry(str(index), origin, params, params, "finished", rungs))
    entries.enter(ledger, entered)
    return ledger


def known(new, *ledgers, like=lambda space, facts: 1.0):
    return gather(ledgers, new, TRAIN, like)


def test_values_are_in_neutral_terms(storage):
    """Rates as factors on 1e-5 (big) and 4e-5 (small), steps as shares of 80."""
    ledger = trained(storage, space("before"), [row(0), row(1), row(2), row(3, model="small")])
    earlier = known(space(), ledger)
    (before,) = earlier.studies
    assert before.name == "before"
    assert before.drawn[2] == {"model": "big", "learning_rate": 4.0, "warmup_steps": 0.125, "gain": True}
    assert before.drawn[3]["learning_rate"] == 2.0
    assert before.finals == pytest.approx([math.log(0.5 * 1.1**index) for index in range(4)], abs=1e-6)
    assert earlier.centers["learning_rate"].of({"model": "small"}) == 4e-5
    assert earlier.centers["warmup_steps"].of({}) == 80.0
    assert "gain" not in earlier.centers


def test_a_factor_and_an_absolute_rate_compare(storage):
    times = ("low: 1e-6, high: 1e-3, log: true", "low: 0.3, high: 6, log: true, times: recommended")
    ledger = trained(storage, space("before"), [row(index) for index in range(4)])
    earlier = known(space("new", times), ledger)
    assert earlier.studies[0].drawn[1]["learning_rate"] == 2.0
    assert earlier.centers["learning_rate"].of({}) == 1.0, "factors are what is drawn"


def test_only_knobs_that_both_search_count_and_without_one_nothing_is_known(storage):
    ledger = trained(storage, space("before"), [row(index) for index in range(4)])
    new = space("new", ("  learning_rate: {low: 1e-6, high: 1e-3, log: true}\n", ""), (", learning_rate: 5e-6", ""))
    assert known(new, ledger).studies[0].knobs == ["gain", "model", "warmup_steps"]
    other = dataclasses.replace(
        new, search={"dropout": space("x", ("gain: [true, none]", "dropout: {low: 0, high: 0.2}")).search["dropout"]}
    )
    assert known(other, ledger) is None
    assert known(space()) is None


def test_the_most_alike_comes_first_and_eight_at_most(storage):
    ledgers = [trained(storage, space(f"s{index}"), [row(step) for step in range(4)]) for index in range(10)]
    earlier = known(space(), *ledgers, like=lambda space, facts: facts["hours"] * int(space.study[1:]) / 20)
    assert [study.name for study in earlier.studies] == [f"s{index}" for index in range(9, 1, -1)]


def test_no_more_histories_are_read_than_are_used(storage, monkeypatch):
    """A storage may hold hundreds of studies, of which those that have nothing to say make room for others."""
    ledgers = [trained(storage, space(f"s{index}"), [row(step) for step in range(4)]) for index in range(12)]
    ledgers.append(trained(storage, space("short"), [row(step) for step in range(2)]))
    read = []
    whole_history = Ledger.history
    monkeypatch.setattr(Ledger, "history", lambda ledger: read.append(ledger.study) or whole_history(ledger))
    earlier = known(space(), *ledgers, like=lambda space, facts: 1.0 if space.study == "short" else 0.5)
    assert len(earlier.studies) == 8
    assert read[0] == "short"
    assert len(read) == 9


def test_imported_logs_are_a_study_of_their_own_by_measure(storage):
    """Steps are left out: a log may not say of how many they are."""
    rows = [row(index) for index in range(4)]
    ledger = trained(storage, space("before"), rows, "imported", measure="wer_raw")
    (logs,) = known(space(), ledger).studies
    assert logs.name == "before (imported, wer_raw)"
    assert logs.knobs == ["learning_rate"], "the others are the same in all logs"
    assert [row["learning_rate"] for row in logs.drawn] == [1.0, 2.0, 4.0, 8.0]


def test_a_rate_that_nothing_is_known_of_counts_for_the_same_model_alone(storage):
    def unknown(name):
        changed = ("  model: [big, small]\n", ""), ("model: big, learning", "learning"), ("adapters: 0", "adapters: 0")
        made = space(name, *changed)
        return dataclasses.replace(made, train={**made.train, "model": "huge"})

    ledger = trained(storage, unknown("before"), [row(index, model="huge") for index in range(4)])
    earlier = known(unknown("new"), ledger)
    assert earlier.studies[0].drawn[1]["learning_rate"] == 2e-5
    assert "learning_rate" not in earlier.centers
    assert "learning_rate" not in known(space(), ledger).studies[0].knobs


def test_values_that_have_no_place_are_left_out(storage):
    rows = [row(index) for index in range(5)]
    rows[2]["warmup_steps"] = None
    ledger = trained(storage, space("before"), rows)
    assert len(known(space(), ledger).studies[0].drawn) == 4
