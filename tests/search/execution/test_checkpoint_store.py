"""Checkpoints of workers whose machines share no disk."""

import pytest

from search.errors import UserError
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildProcess
from search.execution.lease import Interrupts
from search.execution.worker import Worker
from tests.support.toy_study import CHILD, KNOBS, Watcher, toy_space, toy_storage, toy_study


def test_checkpoints_reach_a_machine_that_shares_no_disk(tmp_path):
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 3)
    checkpoint_store, interrupts, watcher = (
        CheckpointStore(f"file://{tmp_path}/depot", "toy", pytest.fail),
        Interrupts(),
        Watcher(),
    )
    watcher.on_progress = lambda number, event: setattr(interrupts, "stop", (number, event.step) >= (1, 1))
    here, there = tmp_path / "here" / "toy", tmp_path / "there" / "toy"

    def one(folder, interrupts, watcher):
        folder.mkdir(parents=True)
        child = ChildProcess(CHILD)
        job = {"step_seconds": 0.05}
        try:
            return Worker(ledger, space, KNOBS, child, folder, job, watcher, checkpoint_store=checkpoint_store).run(
                interrupts
            )
        finally:
            child.close()

    assert one(here, interrupts, watcher) == "interrupted"
    assert one(there, Interrupts(), Watcher()) == "done"
    steps = [(folder / "trials" / "steps.log").read_text().splitlines() for folder in (here, there)]
    assert not set(steps[0]) & set(steps[1]), "what was trained here was not trained there"
    assert not [path for path in (tmp_path / "depot").rglob("*") if path.is_file()], "nothing is left in the depot"


def test_a_depot_that_cannot_be_reached_costs_time_only(tmp_path):
    said = []
    checkpoint_store = CheckpointStore(f"file://{tmp_path}/toy.yaml/below-a-file", "toy", said.append)
    space = toy_space(tmp_path)
    ledger, child = toy_study(toy_storage(tmp_path), space, 2), ChildProcess(CHILD)
    (tmp_path / "toy").mkdir()
    try:
        assert (
            Worker(ledger, space, KNOBS, child, tmp_path / "toy", {}, Watcher(), checkpoint_store=checkpoint_store).run(
                Interrupts()
            )
            == "done"
        )
    finally:
        child.close()
    assert len(said) == 1
    assert said[0].startswith("TMSEARCH_CHECKPOINTS: ")
    with pytest.raises(UserError, match="TMSEARCH_CHECKPOINTS"):
        CheckpointStore("nonsense://there", "toy", said.append)
