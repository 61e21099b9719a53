"""Checkpoints of workers whose machines share no disk."""

import pytest

from search.errors import UserError
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildProcess
from search.execution.lease import Interrupts
from search.execution.worker import Worker
from search.storage import ownership
from tests.support.toy_study import CHILD, KNOBS, Watcher, toy_space, toy_storage, toy_study


def run_worker(ledger, space, folder, store, interrupts, watcher, **settings):
    folder.mkdir(parents=True)
    child = ChildProcess(CHILD)
    try:
        worker = Worker(ledger, space, KNOBS, child, folder, settings, watcher, checkpoint_store=store)
        return worker.run(interrupts)
    finally:
        child.close()


def test_checkpoints_reach_a_machine_that_shares_no_disk(tmp_path):
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 3)
    store = CheckpointStore(f"file://{tmp_path}/store", "toy", pytest.fail)
    interrupts, watcher = Interrupts(), Watcher()
    watcher.on_progress = lambda number, event: setattr(interrupts, "stop", (number, event.step) >= (1, 1))
    here, there = tmp_path / "here" / "toy", tmp_path / "there" / "toy"
    assert run_worker(ledger, space, here, store, interrupts, watcher, step_seconds=0.05) == "interrupted"
    assert run_worker(ledger, space, there, store, Interrupts(), Watcher(), step_seconds=0.05) == "done"
    steps = [(folder / "trials" / "steps.log").read_text().splitlines() for folder in (here, there)]
    assert not set(steps[0]) & set(steps[1]), "what was trained here was not trained there"
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()], "nothing is left in the store"


def test_a_store_that_cannot_be_reached_costs_time_only(tmp_path):
    notices = []
    store = CheckpointStore(f"file://{tmp_path}/toy.yaml/below-a-file", "toy", notices.append)
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 2)
    assert run_worker(ledger, space, tmp_path / "toy", store, Interrupts(), Watcher()) == "done"
    assert len(notices) == 1
    assert notices[0].startswith("TMSEARCH_CHECKPOINTS: ")
    with pytest.raises(UserError, match="TMSEARCH_CHECKPOINTS"):
        CheckpointStore("nonsense://there", "toy", notices.append)


def test_a_study_of_the_same_name_in_another_database_has_checkpoints_of_its_own(tmp_path):
    stores = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        ledger = toy_study(toy_storage(tmp_path / name), toy_space(tmp_path), 3)
        stores.append(CheckpointStore(f"file://{tmp_path}/store", ownership.unique_name(ledger), pytest.fail))
    trial = tmp_path / "first" / "toy" / "trials" / "0000"
    (trial / "checkpoints" / "claim-000001" / "step-000002").mkdir(parents=True)
    (trial / "checkpoints" / "claim-000001" / "step-000002" / "value").write_text("2")
    stores[0].store(0, trial, 1)
    elsewhere = tmp_path / "elsewhere" / "0000"
    stores[1].fetch(0, elsewhere)
    assert not elsewhere.exists()
    stores[1].clear()
    stores[0].fetch(0, elsewhere)
    assert (elsewhere / "checkpoints" / "claim-000001" / "step-000002" / "value").read_text() == "2"
    stores[0].clear()
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
