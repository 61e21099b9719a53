"""Earlier studies of the same storage, ranked by likeness, in `run`, `--dry-run` and `status`."""

import dataclasses
import math
from itertools import pairwise

import pytest
import sqlalchemy as sa

from search import study
from search.records import Rung
from search.samplers.earlier import FACT, EarlierStudies
from search.storage import entries, schema
from search.storage.database import open_storage
from tmsearch.cli.services import create, knobs
from tmsearch.cli.services.earlier import known_to
from tmsearch.cli.services.runs.workers import ONE_WORKER
from tmsearch.cli.view.status_page import page_lines
from tmsearch.trial import facts
from tmsearch.trial.facts import DataFacts

SPACE = """
study: NAME
data: {dataset: demo, language: en, validation: 8, test: 8}
budget: {max_steps: 4, rungs: [2, 4]BUDGET}
train: {model: MODEL, batch_size: 4}
search: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}
"""
DATA = DataFacts("f", 200, 600.0, tuple(map(str, range(100))), ("b",), ("c",))
MICRO = 4e-4


def space(folder, name, model="demo/micro", budget=""):
    file = folder / f"{name}.yaml"
    file.write_text(SPACE.replace("NAME", name).replace("MODEL", model).replace("BUDGET", budget))
    return knobs.load_space(str(file), (), None)


def trained(storage, earlier, data=DATA, **more_facts):
    ledger = study.create(
        storage, earlier, seed=0, trials=4, version="test", facts={facts.DATA: data.to_json(), **more_facts}
    )
    entered = []
    for index in range(4):
        params = {"learning_rate": MICRO * 2.0**index}
        entered.append(entries.Entry(str(index), "sampled", params, params, "finished", (Rung(4, 0.5 + index, {}),)))
    entries.enter(ledger, entered)


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path}/db.sqlite")


def test_the_likeness_of_models_and_hours_ranks(tmp_path, storage):
    trained(storage, space(tmp_path, "nano", "demo/nano"))
    trained(storage, space(tmp_path, "micro"), dataclasses.replace(DATA, seconds=6000.0))
    trained(storage, space(tmp_path, "same"))
    trained(storage, space(tmp_path, "same-confirm"), **{facts.CONFIRMS: {}})
    known = known_to(storage, space(tmp_path, "new"), DATA.to_json())
    likenesses = {earlier.name: earlier.likeness for earlier in known.studies}
    sizes = math.log10(1.351296 / 0.3904)
    assert likenesses == pytest.approx({"same": 1.0, "nano": math.exp(-sizes), "micro": math.exp(-1)}, abs=1e-5)
    assert next(iter(likenesses)) == "same"
    assert known.studies[0].drawn[1] == {"learning_rate": 2.0}


@pytest.fixture
def queries(storage):
    """The statements that the database is asked from now on."""
    statements = []
    with storage.read() as connection:
        engine = connection.engine

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, *_):
        statements.append(statement)

    return statements


def test_each_study_is_read_once(tmp_path, storage, queries):
    """The row and the facts of each, and the history of those that are used, in four statements."""
    of_facts = []
    counts = []
    for number in range(3):
        trained(storage, space(tmp_path, f"s{number}"))
        trained(storage, space(tmp_path, f"s{number}-confirm"), **{facts.CONFIRMS: {}})
        queries.clear()
        known = known_to(storage, space(tmp_path, "new"), DATA.to_json())
        assert len(known.studies) == number + 1
        reads = [statement for statement in queries if statement.startswith("SELECT")]
        of_facts.append(sum(f"FROM {schema.facts.name}" in statement for statement in reads))
        counts.append(len(reads))
    assert of_facts == [2, 4, 6]
    assert [later - before for before, later in pairwise(counts)] == 2 * [(2 + 4) + 2]


def test_a_study_that_is_deleted_meanwhile_says_nothing(tmp_path, storage, monkeypatch):
    trained(storage, space(tmp_path, "same"))
    monkeypatch.setattr(study, "names", lambda storage: ["gone", "same"])
    known = known_to(storage, space(tmp_path, "new"), DATA.to_json())
    assert [earlier.name for earlier in known.studies] == ["same"]


def test_one_word_turns_it_off_and_no_other_sampler_is_told(tmp_path, storage):
    assert known_to(storage, space(tmp_path, "new"), DATA.to_json()) is None, "no storage yet"
    trained(storage, space(tmp_path, "same"))
    assert known_to(storage, space(tmp_path, "new", budget=", earlier: off"), DATA.to_json()) is None
    assert known_to(storage, space(tmp_path, "new", budget=", sampler: tpe"), DATA.to_json()) is None
    assert known_to(storage, space(tmp_path, "new", budget=", earlier: on"), DATA.to_json()) is not None


def test_a_study_keeps_what_it_was_made_with_and_status_says_it(tmp_path, storage):
    from search.execution.messages import Checked

    trained(storage, space(tmp_path, "same"))
    checked = Checked(DATA.to_json(), {}, None)
    ledger = create.create_study(storage, space(tmp_path, "new"), checked, ONE_WORKER)
    kept = EarlierStudies.of(ledger.facts())
    assert [len(earlier.drawn) for earlier in kept.studies] == [4]
    trained(storage, space(tmp_path, "later"))
    assert EarlierStudies.of(ledger.facts()) == kept
    (line,) = [
        text for ((text, _), *_) in page_lines(study.summarize(ledger), 140) if text.startswith("known from earlier")
    ]
    assert line == "known from earlier studies: 4 configurations (4 of same)"
    assert kept.line_with_switch() == f"{line}; `earlier: off` under budget makes a study without"
    off = create.create_study(storage, space(tmp_path, "off", budget=", earlier: off"), checked, ONE_WORKER)
    assert FACT not in off.facts()
