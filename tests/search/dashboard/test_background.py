"""What the last worker could not publish any more is published all the same, or left by somebody who wants to go."""

import optuna
import pytest

from search.dashboard.background import publish_remaining
from search.dashboard.publisher import Publisher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker_pool import WorkerPool
from search.storage import retry
from search.storage.retry import Retry
from tests.support.toy_study import Watcher, toy_space, toy_storage, toy_study, work


@pytest.fixture
def unpublished(tmp_path):
    """A study that has ended; nothing of it is in Optuna."""
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 3)
    work(ledger, space, tmp_path / "toy")
    optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    return ledger, space


def states(ledger):
    study = optuna.load_study(study_name="toy", storage=ledger.storage.optuna)
    return [trial.state.is_finished() for trial in study.trials]


class Away(Publisher):
    """Finds the database away so many times."""

    def __init__(self, times, *words):
        super().__init__(*words)
        self.times = times

    def finish(self):
        if self.times:
            self.times -= 1
            raise optuna.exceptions.StorageInternalError("the server closed the connection\nand more")
        super().finish()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(retry, "_PAUSES", (0.01,))


def test_a_database_that_is_away_is_waited_for(unpublished):
    ledger, space = unpublished
    notices = []
    publish_remaining(Away(3, ledger, space, notices.append), Retry(notices.append, lambda: False))
    assert states(ledger) == [True] * 3
    assert notices[0].startswith("the server closed the connection; training continues, its results wait")
    assert notices[1:] == ["the database answers again"]


def test_somebody_who_wants_to_leave_does_not_wait(unpublished):
    ledger, space = unpublished
    publisher = Away(3, ledger, space, pytest.fail)
    publish_remaining(publisher, Retry(pytest.fail, lambda: True))
    assert publisher.times == 2


def test_who_gave_up_tries_once(unpublished):
    ledger, space = unpublished
    waiting = Retry(lambda text: None, lambda: False, seconds=0.05)
    for tries in (10**6, 10):
        publisher = Away(tries, ledger, space, pytest.fail)
        publish_remaining(publisher, waiting)
    assert publisher.times == 9


class Gone:
    """A launcher whose workers have all been: each leaves at once, and publishes nothing."""

    def start(self, slot):
        return self

    def poll(self):
        return 0

    def last_line(self):
        return ""

    def close(self):
        pass


def test_a_pool_publishes_what_its_workers_left(unpublished):
    ledger, space = unpublished
    watcher = Watcher()
    pool = WorkerPool(
        Gone(), 2, ledger, Monitor(ledger, watcher), watcher.notice, Publisher(ledger, space, watcher.notice)
    )
    assert pool.run(Interrupts()) == "done"
    assert states(ledger) == [True] * 3
