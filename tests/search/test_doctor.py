"""What doctor finds in a study that was treated badly, and that it is well afterwards."""

import re

import pytest

from search.doctor import Doctor
from search.execution.lease import Interrupts
from search.paths import trial_folder
from search.process_id import ProcessId
from search.records import IMPORTED, Rung, code_versions
from search.storage import entries
from search.storage.entries import Entry
from tests.support.toy_study import Watcher, told, toy_space, toy_storage, toy_study, work


def check_checkpoint(path, trial):
    return None if (path / "value").exists() else f"{path.name}: cut short"


def diagnoses(ledger, folder):
    return {
        diagnosis.name: diagnosis
        for diagnosis in Doctor(ledger, folder, check_checkpoint).examine()
        if diagnosis.state != "ok"
    }


@pytest.fixture
def half(tmp_path):
    """A study in the middle of which its worker left."""
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    interrupts, watcher = Interrupts(), Watcher()
    watcher.on_progress = lambda number, event: setattr(interrupts, "stop", (number, event.step) >= (3, 1))
    work(ledger, toy_space(tmp_path), tmp_path / "toy", interrupts=interrupts, watcher=watcher, step_seconds=0.02)
    return ledger, tmp_path / "toy"


def test_a_well_study_has_nothing(half):
    assert diagnoses(*half) == {}
    ledger, folder = half
    disk = [diagnosis for diagnosis in Doctor(ledger, folder, check_checkpoint).examine() if diagnosis.name == "disk"]
    assert disk[0].message.endswith("at most (budget.disk_gb)")
    assert re.search(r"checkpoints take \d+ kB, the largest \d+ kB, ", disk[0].message), "toys are small"


def test_a_fresh_import_is_not_bad(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    drawn = {"x": 1.0, "kind": "plain"}
    entries.enter(ledger, [Entry("log", IMPORTED, drawn, drawn, "finished", (Rung(8, 1.0, {}),), "by hand")])
    found = diagnoses(ledger, tmp_path / "toy")
    assert found["optuna"].state == "note"
    assert [diagnosis.name for diagnosis in found.values() if diagnosis.state == "bad"] == []


def test_what_was_done_to_it_is_found_and_mended(half, tmp_path):
    ledger, folder = half
    scheduler_config = toy_space(tmp_path).budget.scheduler_config
    dead = ProcessId(ProcessId.current().host, ProcessId.current().machine, 2**22 + 1, "0")
    ledger.sign_in(dead, "nowhere", "1")
    ledger.claim(dead, scheduler_config)
    (folder / "trials" / "0099").mkdir()
    (folder / "trials" / "0001" / "checkpoints.discarded").mkdir()
    saved = next(folder.glob("trials/*/checkpoints/claim-*/step-*"))
    (saved / "value").unlink()
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    problems = diagnoses(ledger, folder)
    assert set(problems) == {"claims", "workers", "optuna", "files", "checkpoints"}
    assert "whose worker is gone" in problems["claims"].message
    assert "nowhere" in problems["workers"].message
    assert "cut short" in problems["checkpoints"].message
    for diagnosis in Doctor(ledger, folder, check_checkpoint).examine():
        if diagnosis.repair:
            diagnosis.repair()
    assert set(diagnoses(ledger, folder)) <= {"checkpoints"}, "but a checkpoint that is gone is gone"
    assert not (folder / "trials" / "0099").exists()
    assert work(ledger, toy_space(tmp_path), folder)[0] == "done"
    (tmp_path / "calm").mkdir()
    calm = toy_study(toy_storage(tmp_path / "calm"), toy_space(tmp_path), 6)
    work(calm, toy_space(tmp_path), tmp_path / "calm" / "toy")
    assert told(ledger) == told(calm)


def test_who_is_at_work_is_left_alone(half, tmp_path):
    ledger, folder = half
    claim = ledger.claim(ProcessId.current(), toy_space(tmp_path).budget.scheduler_config)
    ledger.sign_in(ProcessId.current(), "here", "1")
    pending = folder / "trials" / f"{claim.number:04d}" / "checkpoints" / f"claim-{claim.token:06d}" / ".pending-1"
    pending.mkdir(parents=True)
    # A worker goes on to the next segment while the checkpoint of its last one is being written.
    rested = next(configuration for configuration in ledger.history() if configuration.state == "paused")
    beside = folder / "trials" / f"{rested.number:04d}" / "checkpoints" / "claim-000001" / ".pending-1"
    beside.mkdir(parents=True)
    assert diagnoses(ledger, folder) == {}
    assert ledger.release_stale() == []
    assert ledger.history()[claim.number].state == "running"


def test_a_checkpoint_of_another_training_is_named_and_its_trial_trains_again(half, tmp_path):
    ledger, folder = half
    trial = next(trial for trial in ledger.history() if trial.state == "paused")
    checkpoint = trial_folder(folder, trial.number) / "checkpoints" / "claim-000001" / "step-000099"
    checkpoint.mkdir(parents=True)
    (checkpoint / "value").write_text("99")

    def check(path, of_trial):
        return "made with another config" if (path, of_trial.number) == (checkpoint, trial.number) else None

    def diagnosis():
        return next(found for found in Doctor(ledger, folder, check).examine() if found.name == "checkpoints")

    name = checkpoint.relative_to(folder)
    assert diagnosis().state == "bad"
    assert f"trial {trial.number}: {name}: made with another config" in diagnosis().message
    assert "trains again" in diagnosis().message
    diagnosis().repair()
    assert not checkpoint.exists()
    assert diagnosis().state != "bad"


def test_checkpoints_of_what_never_reached_a_rung_are_checked_too(tmp_path):
    space, folder = toy_space(tmp_path), tmp_path / "toy"
    ledger = toy_study(toy_storage(tmp_path), space, 2)
    claim = ledger.claim(ProcessId.current(), space.budget.scheduler_config)
    ledger.set_params(claim, {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"}, "sampled")
    ledger.release(claim)
    (trial_folder(folder, 0) / "checkpoints" / "claim-000001" / "step-000001").mkdir(parents=True)
    found = diagnoses(ledger, folder)["checkpoints"]
    assert (found.state, "trial 0: " in found.message) == ("bad", True)


def test_a_code_that_changed_midway_is_noted(half, tmp_path):
    ledger, folder = half
    scheduler_config = toy_space(tmp_path).budget.scheduler_config
    claim = ledger.claim(ProcessId.current(), scheduler_config)
    ledger.commit(claim, 0.5, {"train_seconds": 1.0}, scheduler_config, version="2.0")
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_segment SET version = '1.0' WHERE version != '2.0'")
    assert list(code_versions(ledger.history())) == ["1.0", "2.0"]
    assert "changed midway" in diagnoses(ledger, folder)["code"].message
