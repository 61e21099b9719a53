"""What doctor says of a machine, and of the checkpoints of a real study's trials."""

import json

import pytest

from search.paths import trial_folder
from search.process_id import ProcessId
from tests.support import in_process
from tests.support.study_builder import CLAIMED_SPACE, StudyBuilder, claimed_params, data_fact
from tmsearch.cli.commands import doctor
from tmsearch.cli.commands.doctor import checkpoint_check
from tmsearch.cli.services.knobs import load_space
from tmsearch.machine.survey import Finding
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


@pytest.fixture
def survey(monkeypatch):
    """A survey with these states and nothing else; the folders that it was asked about are in `folders`."""

    def play(*states):
        def survey(folders):
            play.folders = folders
            return [Finding(f"check{number}", state, "a line") for number, state in enumerate(states)]

        monkeypatch.setattr(doctor, "survey", survey)

    return lambda *states: (play(*states), play)[1]


@pytest.mark.parametrize(("states", "exit_code"), [(("ok", "note"), 0), (("ok", "bad"), 1)])
def test_without_a_study_it_is_about_the_machine(tmp_path, survey, states, exit_code):
    played = survey(*states)
    done = in_process.tmsearch(tmp_path, "doctor")
    assert done.returncode == exit_code
    assert done.stdout == "".join(f"{state:<7} check{number:<7} a line\n" for number, state in enumerate(states))
    assert [folder.name for folder in played.folders] == ["studies", "cache"]
    assert all(folder.filesystem for folder in played.folders)
    as_json = json.loads(in_process.tmsearch(tmp_path, "doctor", "--json").stdout)
    assert [finding["state"] for finding in as_json["findings"]] == list(states)
    assert as_json["study"] is None
    assert list(tmp_path.iterdir()) == []


def test_sqlite_on_a_network_file_system_is_told_before_a_study_is_made(tmp_path, survey, monkeypatch):
    played = survey("ok")
    monkeypatch.setattr(doctor, "filesystem_type", lambda folder: "nfs4")
    in_process.tmsearch(tmp_path, "doctor")
    assert played.folders[0].problem == "SQLite is refused on it"
    assert played.folders[1].problem is None


def test_a_machine_cannot_be_repaired(tmp_path):
    done = in_process.tmsearch(tmp_path, "doctor", "--repair")
    assert done.returncode == 2
    assert "name the study" in done.stderr
