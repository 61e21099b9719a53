"""The database's clock may be stepped, back or forth: nobody loses a lease for it twice, and no dead one's lasts."""

import pytest
import sqlalchemy as sa

from search.process_id import ProcessId
from search.storage import reader
from search.storage.reader import LEASE_SECONDS, is_current
from search.storage.schema import configurations, studies, workers
from tests.support.toy_study import toy_space, toy_storage, toy_study

ELSEWHERE = ProcessId("elsewhere", "0", 1, "1")  # nobody here knows whether it lives
HERE = ProcessId("nearby", "1", 2, "1")
TWO_HOURS = 7200.0


class Row:
    def __init__(self, now, started):
        self.now = now
        self.started = started


@pytest.fixture
def ledger(tmp_path):
    return toy_study(toy_storage(tmp_path), toy_space(tmp_path), 1)


def shift(ledger, column, table, seconds):
    with ledger.storage.write() as connection:
        connection.execute(sa.update(table).values({column: column + seconds}))


@pytest.mark.parametrize("seconds", [-TWO_HOURS, -30.0, 3600.0, 1e6])
def test_a_lease_given_now_is_held_whenever_the_server_started(seconds):
    now = 1e9
    assert reader._expiry(Row(now, now - seconds)) <= now < now + LEASE_SECONDS


def test_after_a_restart_every_worker_has_a_lease_s_time_to_renew():
    assert reader._expiry(Row(1e9 + 10, 1e9)) == 1e9 - LEASE_SECONDS


def test_what_lasts_longer_than_a_lease_is_from_before_the_step():
    assert is_current(1e9 + LEASE_SECONDS, 1e9)
    assert not is_current(1e9 + TWO_HOURS, 1e9)
    assert not is_current(1e9 - 1, 1e9)
    assert not is_current(None, 1e9)


def test_a_dead_worker_s_lease_ends_in_a_lease_s_time_though_the_clock_was_stepped_back(ledger, tmp_path):
    config = toy_space(tmp_path).budget.scheduler_config
    claim = ledger.claim(ELSEWHERE, config)
    ledger.set_params(claim, {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"}, "sampled")
    shift(ledger, configurations.c.lease_until, configurations, TWO_HOURS)
    assert ledger.claim(HERE, config) is None, "it may be alive: it has a lease's time to say so"
    with ledger.storage.read() as connection:
        assert connection.execute(sa.select(configurations.c.lease_until)).scalar_one() <= ledger.now() + LEASE_SECONDS
    assert ledger.renew(claim, {})[0], "and where it is alive it keeps its claim"
    shift(ledger, configurations.c.lease_until, configurations, -LEASE_SECONDS - 1)
    assert ledger.claim(HERE, config).number == 0
    assert ledger.claim(ELSEWHERE, config) is None, "nobody takes it back from a lease that runs"


def test_a_dead_worker_does_not_look_alive_for_hours(ledger):
    ledger.sign_in(ELSEWHERE, "there", "1")
    assert [worker.alive for worker in ledger.workers()] == [True]
    shift(ledger, workers.c.seen, workers, TWO_HOURS)
    assert [worker.alive for worker in ledger.workers()] == [False]
    ledger.sign_in(ELSEWHERE, "there", "1")
    assert [worker.alive for worker in ledger.workers()] == [True], "one that is alive says so again"


def test_a_dead_publisher_keeps_nobody_from_publishing_for_hours(ledger, tmp_path):
    from search.dashboard.publisher import Publisher

    publisher = Publisher(ledger, toy_space(tmp_path), print)
    with ledger.storage.write() as connection:
        until = reader.clock(connection) + TWO_HOURS
        connection.execute(sa.update(studies).values(publisher=str(ELSEWHERE), publisher_until=until))
    assert publisher._lease.take()
