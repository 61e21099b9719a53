"""The plan of a study: memory, time, disk and dollars of one model of cost, for this machine or for a GPU elsewhere."""

import dataclasses

import pytest

from search.errors import UserError
from search.execution.messages import Checked
from search.space.budget import Budget
from search.storage.database import open_storage
from tests.support import toy_whisper
from tmsearch.cli.commands import run as run_command
from tmsearch.cli.parser import parse
from tmsearch.cli.services import knobs, plan
from tmsearch.cli.view.format import dollars
from tmsearch.model import cost
from tmsearch.model import whisper as model
from tmsearch.trial.facts import DataFacts

SPACE = """
study: d
data: {dataset: demo, language: en, validation: 8, test: 8}
budget: {max_steps: 80, rungs: [20, 40, 80]}
train: {model: MODEL, batch_size: 4}
search: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}
"""
FACTS = DataFacts("f", 200, 550.0, ("a",), ("b",), ("c",))
CARD = cost.Card("a measured GPU", 48.0, 300.0, 2.0)


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return model.describe(str(toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))))


def planned(tmp_path, info, card=None, rungs="[20, 40, 80]", **machine):
    file = tmp_path / "d.yaml"
    file.write_text(SPACE.replace("MODEL", info.name).replace("[20, 40, 80]", rungs))
    space, _ = knobs.with_fitting_defaults(knobs.load_space(str(file), (), None))
    config = toy_whisper.config(info.name, batch_size=4)
    needs = {
        **dataclasses.asdict(info),
        **dataclasses.asdict(cost.estimate(info, config)),
        "checkpoint_bytes": cost.checkpoint_bytes(info, config),
        "heard_seconds": 1.5,
        "card": None if card is None else dataclasses.asdict(card),
    }
    checked = Checked(FACTS.to_json(), {info.name: needs}, 1e12)
    return plan.study_plan(space, open_storage(f"sqlite:///{tmp_path}/d.sqlite"), checked, 20, **machine)


def printed(tmp_path, info, card=None, **more):
    return "\n".join([*planned(tmp_path, info, card, **more).lines, ""])


def test_without_a_gpu_the_plan_is_of_this_machine(tmp_path, info):
    text = printed(tmp_path, info)
    assert "of training on this machine if nothing were pruned" in text
    assert "dollars" not in text


def test_a_gpu_elsewhere_is_planned_for_with_its_price(tmp_path, info):
    text = printed(tmp_path, info, gpu_gb=80.0, price=36.0)
    assert "predicted for an H100, 80 GB" in text
    assert "with 4 of 4 clips at a time" in text
    assert "271 kB a checkpoint" in text
    assert "disk: " in text
    assert "dollars at 36 dollars an hour" in text


def test_the_gpu_of_this_machine_is_planned_for_by_what_was_measured(tmp_path, info):
    assert "predicted for a measured GPU, 48 GB (300 TFLOP/s, 2 TB/s)" in printed(tmp_path, info, CARD)
    assert "predicted for an RTX 4090, 24 GB" in printed(tmp_path, info, CARD, gpu_gb=24.0)
    assert "this machine" in printed(tmp_path, info, CARD, gpu_gb=0.0)


@pytest.mark.parametrize("gpu_gb", [None, 80.0])
def test_the_cost_is_that_of_what_is_expected_to_be_trained(tmp_path, info, gpu_gb):
    """And not of all trials in full, which the estimate says beside it."""
    made = planned(tmp_path, info, gpu_gb=gpu_gb, price=36.0)
    assert made.trainings == pytest.approx(0.65 * 20**0.8 + 20 / 16)
    assert made.dollars == pytest.approx(made.seconds / 100)
    assert f"cost: about {made.dollars:.2f} dollars at 36 dollars an hour" in made.lines
    assert planned(tmp_path, info, gpu_gb=gpu_gb).dollars is None
    doubled = planned(tmp_path, info, gpu_gb=gpu_gb, price=36.0, rungs="[20, 40, 80], spend: 1.0")
    assert 2.0 < doubled.seconds / made.seconds < 3.0


def test_a_model_that_does_not_fit_is_named(tmp_path, info):
    assert "MORE THAN IT HAS" in printed(tmp_path, info, gpu_gb=0.0001)


def test_an_option_of_the_plan_wants_the_plan():
    arguments = parse(["run", "--space", "nowhere.yaml", "--gpu", "80"])
    with pytest.raises(UserError, match="--gpu is for the plan; give --dry-run"):
        run_command.run(arguments)


@pytest.mark.parametrize("text", ["-1", "free", "1e3", ""])
def test_a_price_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"is not a price in dollars; write 2\.50"):
        parse(["run", "--space", "s.yaml", "--dry-run", f"--price={text}"])


def test_a_search_is_expected_to_train_a_part_of_its_trials_in_full():
    # 20 to step 100, 5 to 200, 2 to 400 and 800
    halving = Budget(800, (100, 200, 400, 800))
    assert plan.full_trainings(halving, 20) == (20 * 100 + 5 * 100 + 2 * 200 + 2 * 400) / 800
    assert plan.full_trainings(dataclasses.replace(halving, strategy="none"), 20) == 20


def test_what_a_study_ends_with_past_its_plan_is_counted_with_it():
    """At half a training each, 16 take their whole plan to be judged."""
    halves = Budget(80, (40, 80), spend="auto")
    assert plan.full_trainings(halves, 16) == pytest.approx(9.5)
    assert plan.full_trainings(Budget(80, (10, 20, 40, 80), spend="auto"), 20) == pytest.approx(0.65 * 20**0.8)


def test_a_plan_says_what_it_is_expected_to_be_exceeded_by(tmp_path, info):
    plain = printed(tmp_path, info, gpu_gb=80.0)
    assert "(budget.spend auto)\n" in plain
    coarse = printed(tmp_path, info, rungs="[40, 80]", gpu_gb=80.0)
    assert "planned: 11.0 trainings in full for 20 configurations (budget.spend auto); about 11.5 with the" in coarse
    assert "if the search trains as much as 11.5 of them in full" in coarse
    assert "as planned" in printed(tmp_path, info, rungs="[40, 80]")


def test_dollars_are_hours_times_the_price():
    assert dollars(1800, 2.5) == "about 1.25 dollars"
