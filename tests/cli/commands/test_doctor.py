"""What doctor says of the checkpoints of a real study's trials."""

import pytest

from search.paths import trial_folder
from search.process_id import ProcessId
from tests.support.study_builder import CLAIMED_SPACE, StudyBuilder, claimed_params, data_fact
from tmsearch.cli.commands.doctor import checkpoint_check
from tmsearch.cli.services.knobs import load_space
from tmsearch.recipe import trial_recipe
from tmsearch.training import checkpoints
from tmsearch.training.checkpoints import Checkpoint
from tmsearch.training.state import identity_on

SPLIT = {"train": ["a"], "validation": ["b"], "test": ["c"]}


@pytest.fixture
def paused(tmp_path):
    """A study with one trial that was interrupted in its first segment."""
    builder = StudyBuilder(tmp_path, CLAIMED_SPACE).trials(2)
    ledger = builder.facts({"data": data_fact("f" * 64, 3, SPLIT), "threads": 1}).build()
    config = load_space(str(builder.space_file()), [], None).budget.scheduler_config
    claim = ledger.claim(ProcessId.current(), config)
    ledger.set_params(claim, claimed_params(0), claimed_params(0), "sampled")
    ledger.release(claim)
    return ledger, tmp_path


def saved(ledger, folder, **other):
    """A checkpoint in the trial's folder, of a training with other knobs where `other` has any."""
    record, trial = ledger.record(), ledger.history()[0]
    corpus = other.pop("corpus", "f" * 64)
    recipe = trial_recipe(
        dict(record.space["data"]),
        {**trial.params, **other},
        seed=record.seed,
        max_steps=record.space["budget"]["max_steps"],
        threads=1,
        fingerprint=corpus,
    )
    claimed = checkpoints.claim_folder(trial_folder(folder, 0) / "checkpoints", 1)
    return checkpoints.save(claimed, Checkpoint(10, {}, identity_on(recipe.train, corpus)))


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({}, None),
        ({"learning_rate": 0.5}, "made with another config"),
        ({"corpus": "e" * 64}, "made with another corpus"),
    ],
)
def test_a_checkpoint_of_another_training_is_told_from_its_own(paused, other, problem):
    ledger, folder = paused
    checkpoint = saved(ledger, folder, **other)
    assert checkpoint_check(ledger)(checkpoint, ledger.history()[0]) == problem


def test_a_damaged_one_is_told_too(paused):
    ledger, folder = paused
    checkpoint = saved(ledger, folder)
    (checkpoint / "state.json").write_text("{}")
    assert "does not match its checksum" in checkpoint_check(ledger)(checkpoint, ledger.history()[0])
