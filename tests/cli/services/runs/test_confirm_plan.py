"""The plan of a confirmation: trainings, what is there of them, time, memory, disk and dollars, and no trace of it."""

import dataclasses
import hashlib
import shutil
import sqlite3
from types import SimpleNamespace

import pytest

import tmsearch
from search import study
from search.errors import UserError
from search.execution.messages import Checked
from search.process_id import ProcessId
from search.schedulers import race_reference
from search.space.search_space import Space
from search.storage.database import Storage, open_storage
from tests.support import toy_whisper
from tests.support.study_builder import StudyBuilder, data_fact
from tmsearch.cli.commands import confirm as confirm_command
from tmsearch.cli.parser import parse
from tmsearch.cli.services.confirmation import ConfirmOptions
from tmsearch.cli.services.run_study import StudyView
from tmsearch.cli.services.runs import confirm as races
from tmsearch.cli.services.runs.confirm import RaceOptions
from tmsearch.cli.services.runs.workers import WorkerPlan
from tmsearch.evaluation.scores import ClipScore
from tmsearch.model import cost
from tmsearch.model import whisper as model
from tmsearch.trial.facts import TEST_READ, DataFacts

SPACE = """
study: d
data: {dataset: demo, language: en, validation: 8, test: 8}
budget: {max_steps: 80, rungs: [20, 80]}
train: {model: MODEL, batch_size: 4}
search: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}
"""
CLIPS = 8
SPLIT = {"train": [f"t{n}" for n in range(40)], "validation": [f"v{n}" for n in range(CLIPS)], "test": ["x0", "x1"]}
SECONDS = 1.0  # a step of the search
WORKER = ProcessId.parse("host|boot|1|2")


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return model.describe(str(toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))))


@pytest.fixture
def storage(tmp_path, info):
    """A search of four that has ended; trial 1 leads, then 2, 3; trial 0 is the default recipe."""
    facts = {"data": data_fact("f", 200, SPLIT), "words:0": [10] * CLIPS}
    builder = StudyBuilder(tmp_path, SPACE.replace("MODEL", info.name)).facts(facts)
    for number, rate in enumerate((1e-5, 1e-4, 2e-4, 3e-4)):
        params = {"model": info.name, "learning_rate": rate, "batch_size": 4}
        scores = [ClipScore(name, "", "", 9 if number == 0 else number, 0, 0, 10) for name in SPLIT["validation"]]
        builder.trial(params, {80: scores}, "finished", rung_seconds=80 * SECONDS - 5)  # and 5 s of evaluation
    return builder.build().storage


@pytest.fixture(autouse=True)
def checked(monkeypatch, info):
    """What the training process would answer, without one."""
    needs = {
        **dataclasses.asdict(info),
        **dataclasses.asdict(cost.estimate(info, toy_whisper.config(info.name, batch_size=4))),
        "checkpoint_bytes": 2_000_000,
        "heard_seconds": 1.5,
        "card": None,
    }
    data = DataFacts("f", 200, 550.0, ("a",), ("b",), ("c",))
    answers = [Checked(data.to_json(), {info.name: needs}, 1e12)]
    asked = []

    def check_space(child, space, *, measure):
        asked.append(space)
        return answers[-1]

    monkeypatch.setattr(races, "check_space", check_space)
    monkeypatch.setattr(races, "new_trial_process", lambda: SimpleNamespace(close=lambda: None))
    return SimpleNamespace(answers=answers, asked=asked, data=data, needs=needs)


def planned(storage, top=None, seeds=None, folds=None, gpu=None, price=None, **more):
    options = RaceOptions(ConfirmOptions(top, seeds, folds), workers=WorkerPlan(1, price=price), **more)
    return races.plan_race(storage, "d", options, gpu)


def begun(storage, **plan):
    """The confirmation's ledger, as a run makes it before it trains."""
    options = RaceOptions(ConfirmOptions(**plan))
    return races.prepare(storage, "d", options, StudyView(say=lambda line: None)).ledger


def train(ledger, trainings, rates):
    """Let the race go on for so many trainings; `rates`: errors of ten words by learning rate."""
    for _ in range(trainings):
        config = Space.from_json(dict(ledger.record().space)).budget.scheduler_config
        claim = ledger.claim(WORKER, config)
        errors = [rates[claim.params["learning_rate"]]] * CLIPS
        errors[claim.params["seed"] % CLIPS] += 1
        metrics = {"errors": errors, "train_seconds": 35.0, "eval_seconds": 5.0}
        ledger.commit(claim, sum(errors) / 80, metrics, config)


def contents(folder):
    """Every file's digest, but of the index that SQLite's readers keep beside a database."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_plan_of_a_first_confirmation(storage, tmp_path):
    before = contents(tmp_path)
    plan = planned(storage, price=36.0)
    first, second = plan.lines[:2]
    assert first == f"study d-confirm: at most 11 trainings of 80 steps; sqlite:///{tmp_path}/studies/tmsearch.db"
    assert second == (
        "confirm d: default recipe against trial 1, trial 2, trial 3; up to 4 trainings each, seeds 1 to 4, on the "
        "study's own split, and after each round the worse half of the leaders leaves"
    )
    assert "  trial 1: learning_rate=0.0001" in plan.lines
    assert plan.trainings == race_reference.planned_trainings(3, 4) == 11
    assert plan.seconds == pytest.approx(11 * 80 * SECONDS)
    assert (
        "estimate: at most 11 trainings, about 14:40 at the speed of the search; it ends once the answer is known"
        in (plan.lines)
    )
    assert plan.dollars == pytest.approx(8.80)
    assert plan.lines[-1] == "cost: about 8.80 dollars at 36 dollars an hour"
    text = "\n".join(plan.lines)
    assert "40 to train, 8 to validate, 2 locked as test" in text
    assert "at least 1.7 MB to train, 2.0 MB a checkpoint" in text
    assert "kept until `tmsearch delete d-confirm`" in text
    assert not plan.exists
    assert contents(tmp_path) == before
    assert study.names(storage) == ["d"]
    assert planned(storage).dollars is None


def test_the_plan_is_what_the_confirmation_says_as_it_starts(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(races, "run_study", lambda *arguments: 0)
    plan = planned(storage, top=2, seeds=2)
    lines = []
    options = RaceOptions(ConfirmOptions(2, 2))
    view = StudyView(say=lines.append)
    races.run(races.prepare(storage, "d", options, view), options, view)
    assert lines[:4] == list(plan.lines[1:5])
    assert lines[4] == "at most 5 trainings, about 6:40; it ends once the answer is known"
    assert "estimate: at most 5 trainings, about 6:40 at the speed" in "\n".join(plan.lines)


def test_a_plan_writes_nothing_and_waits_for_nobody_who_writes(storage, monkeypatch):
    def refuse(storage):
        raise AssertionError("a plan writes")

    begun(storage, top=1, seeds=2)
    writer = sqlite3.connect(storage.file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(Storage, "write", refuse)
    try:
        assert planned(storage, seeds=3).trainings == 6
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_what_is_there_is_counted_and_what_is_left_is_at_the_latest_speed(storage, tmp_path):
    ledger = begun(storage, top=3, seeds=3)
    train(ledger, 5, {1e-5: 5, 1e-4: 5, 2e-4: 5, 3e-4: 5})
    plan = planned(storage, price=36.0)
    assert plan.exists
    assert plan.trainings == 11
    # 5 took 40 s each; the 6 to come are reckoned at the slowest that was measured of their recipe, the search's 80 s
    assert plan.seconds == pytest.approx(5 * 40 + 6 * 80)
    line = next(line for line in plan.lines if line.startswith("estimate: "))
    assert ", of which 5 are done and 3:20 is spent; it ends once" in line
    assert plan.lines[-1] == "cost: about 6.80 dollars at 36 dollars an hour, of which 2.00 are spent"
    config = Space.from_json(dict(ledger.record().space)).budget.scheduler_config
    assert ledger.claim(WORKER, config) is not None
    line = next(line for line in planned(storage).lines if line.startswith("estimate: "))
    assert ", of which 5 are done and 3:20 is spent, and 1 is running; it ends" in line


def test_an_answer_that_is_known_needs_nothing_and_more_seeds_do(storage):
    ledger = begun(storage, top=1, seeds=2)
    train(ledger, 4, {1e-5: 8, 1e-4: 8})
    plan = planned(storage, price=36.0)
    assert plan.trainings == 4
    assert "estimate: 4 trainings are done, in 2:40; the answer is known" in plan.lines
    assert not any(line.startswith("disk: ") for line in plan.lines)
    assert plan.dollars == pytest.approx(1.6)
    more = planned(storage, seeds=3)
    assert more.trainings == 6
    assert len(ledger.history()) == 4, "they were entered by nobody"


def test_a_gpu_elsewhere_is_planned_for_at_its_own_speed(storage):
    here = planned(storage)
    there = planned(storage, gpu=80.0)
    text = "\n".join(there.lines)
    assert "predicted for an H100, 80 GB" in text
    assert "935 kB with 4 of 4 clips at a time; " in text
    assert "at most 11 trainings, about 0:0" in text
    assert ", predicted; it ends" in text
    assert 0 < there.seconds < here.seconds
    assert "MORE THAN IT HAS" in "\n".join(planned(storage, gpu=0.0001).lines)


def test_a_disk_that_is_full_a_budget_and_the_test_split_are_named(storage, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    plan = planned(storage, budget=60.0, price=36.0, test=True)
    text = "\n".join(plan.lines)
    assert "while a worker trains: MORE THAN THE 1 kB THAT ARE FREE" in text
    assert "budget: 1:00 may end it without an answer; a larger one continues" in text
    assert plan.seconds == 60.0
    assert "test: the locked test split, 2 clips, is read at the end, once" in text
    assert "budget: " not in "\n".join(planned(storage, budget=1e6).lines)
    begun(storage).add_fact(TEST_READ, "2026-11-01")
    assert "was already read on 2026-11-01" in "\n".join(planned(storage, test=True).lines)


def test_a_search_at_work_and_a_recipe_that_it_never_trained_are_named(storage, tmp_path, info):
    facts = {"data": data_fact("f", 200, SPLIT), "words:0": [10] * CLIPS}
    scores = [ClipScore(name, "", "", 2, 0, 0, 10) for name in SPLIT["validation"]]
    folder = tmp_path / "other"
    folder.mkdir()
    space = SPACE.replace("MODEL", "openai/whisper-tiny")
    builder = StudyBuilder(folder, space).facts(facts).trials(4)
    builder.trial({"model": "openai/whisper-tiny", "learning_rate": 1e-4}, {80: scores}, "finished")
    ledger = builder.build()
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET origin = 'sampled'")
    names = [candidate.train["model"] for candidate in (races.confirm_plan.model_space(_plan(ledger)),)]
    assert names == ["openai/whisper-tiny"]
    assert (
        races.confirm_plan.measured_speed(_plan(ledger))
        == " at the speed of the search (default: of its slowest trial)"
    )
    study.open_study(storage, "d").set_trials(9)
    assert any(
        "study d has not ended, 4 of 9 configurations have a result: its leaders" in line
        for line in (planned(storage).lines)
    )


def _plan(ledger):
    return races.plan_confirmation(ledger.storage, study.summarize(ledger), ConfirmOptions())


def test_data_that_changed_is_refused_before_a_plan_is_made_of_it(storage, checked):
    data = dataclasses.replace(checked.data, fingerprint="g", clips=201)
    checked.answers.append(Checked(data.to_json(), checked.answers[0].models, 1e12))
    with pytest.raises(UserError, match=r"^data\.dataset: demo, .* changed .* \(200 clips then, 201 now\)") as refusal:
        planned(storage)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "--seeds: 1 does not show what seeds change; give at least 2"),
        ({"folds": 99}, "--folds: 99: the clips beside the test split make at most 6 sets of 8"),
    ],
)
def test_options_are_refused_as_by_a_confirmation_before_anything_is_looked_at(storage, checked, options, message):
    with pytest.raises(UserError, match=message):
        planned(storage, **options)
    assert checked.asked == []


def test_a_plan_that_was_made_is_held_to(storage):
    begun(storage, top=1, seeds=2)
    with pytest.raises(UserError, match="--top: was started with 1"):
        planned(storage, top=2)
    with pytest.raises(UserError, match="d-confirm: is a confirmation itself"):
        races.plan_race(storage, "d-confirm", RaceOptions(), None)


def test_files_in_the_way_are_named(storage, tmp_path):
    (tmp_path / "studies" / "d-confirm").mkdir()
    (tmp_path / "studies" / "d-confirm" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="d-confirm: holds files of unknown origin"):
        planned(storage)


def test_an_option_of_the_plan_wants_the_plan():
    with pytest.raises(UserError, match="--gpu is for the plan; give --dry-run"):
        confirm_command.confirm(parse(["confirm", "d", "--gpu", "80"]))
    with pytest.raises(UserError, match=r"is not a price in dollars; write 2\.50"):
        parse(["confirm", "d", "--dry-run", "--price", "free"])


def test_python_and_the_command_have_the_same_plan(storage, capsys):
    url = str(storage.url)
    asked = tmsearch.open_study("d", storage=url)
    plan = asked.plan_confirmation(top=2, seeds=2, price=36)
    assert (
        confirm_command.confirm(
            parse(["confirm", "d", "--top", "2", "--seeds", "2", "--dry-run", "--price", "36", "--storage", url])
        )
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert str(plan).splitlines()[:-1] == printed[:-1]
    assert printed[-1] == "nothing was written; the same command without --dry-run starts the study"
    assert str(plan).endswith("nothing was written; `Study.confirm` starts the study")
    assert (plan.study, plan.exists, plan.trainings) == ("d-confirm", False, 5)
    assert plan.dollars == pytest.approx(plan.seconds / 100)
    assert study.names(open_storage(url)) == ["d"]
    for settings, message in (
        ({"seeds": 1}, "^seeds: 1 does not show"),
        ({"top": 0}, "^top: '0' is not a whole number"),
        ({"gpu": "large"}, "^gpu: 'large' is not a memory size"),
        ({"price": "free"}, "^price: 'free' is not a price"),
        ({"budget": "soon"}, "^budget: 'soon' is not a duration"),
    ):
        with pytest.raises(tmsearch.InputError, match=message):
            asked.plan_confirmation(**settings)


def test_a_confirmation_with_a_price_says_its_cost_first_and_last(storage, monkeypatch):
    ledger = begun(storage, top=1, seeds=2)
    train(ledger, 4, {1e-5: 8, 1e-4: 8})
    ended = []
    monkeypatch.setattr(
        races, "run_study", lambda *arguments: ended.extend(arguments[-1].last_lines(study.summarize(ledger))) or 0
    )
    lines = []
    options = RaceOptions(workers=WorkerPlan(1, price=36.0))
    view = StudyView(say=lines.append)
    races.run(races.prepare(storage, "d", options, view), options, view)
    assert lines[-1] == "4 trainings are done, in 2:40, about 1.60 dollars at 36 an hour; the answer is known"
    assert ended[0].startswith("2:40 of training and evaluation, about 1.60 dollars at 36 an hour")
