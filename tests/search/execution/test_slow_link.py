"""What a worker asks of PostgreSQL, in round trips: on a slow link they are the time between two segments."""

import itertools
import signal
import threading
import time
import zlib

import pytest
import sqlalchemy as sa

from search.dashboard.publisher import Publisher
from search.execution.child_process import ChildProcess
from search.execution.lease import ClaimedSegment, Interrupts
from search.execution.worker import Worker
from search.process_id import ProcessId
from search.storage import postgres as postgres_module
from search.storage import schema
from search.storage.claims import SegmentOutcome
from search.storage.database import open_storage
from search.study import open_study
from tests.search.dashboard.test_notes import ToyCurator
from tests.support.postgres import missing, temporary_cluster
from tests.support.relay import Relay
from tests.support.toy_study import CHILD, KNOBS, Watcher, toy_space, toy_study, work

BETWEEN_SEGMENTS = 8  # round trips, also where other workers have committed meanwhile
AT_THE_END = 60  # round trips from the last result on, most of them to publish it
PUBLISHING = 40  # round trips to publish up to 20 configurations, with those to connect
DRAWN = {"x": 1.0, "kind": "plain"}


@pytest.fixture(scope="module")
def cluster():
    """One server for all of these, since each takes seconds to make."""
    why = missing()
    if why:
        pytest.skip(why)
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(cluster, request):
    """The name of a database of the test's own."""
    name = f"t{zlib.crc32(request.node.name.encode())}"
    engine = sa.create_engine(cluster.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return name


@pytest.fixture
def relay(cluster, database):
    relay = Relay(cluster.folder.with_name(f"relay-{database}"), cluster.folder, database)
    yield relay
    relay.close()


@pytest.fixture
def moments(monkeypatch):
    """(what, time.monotonic()) of each result that came from the training process, and of each job sent to it."""
    moments = []
    send_job, run = ChildProcess.send_job, ClaimedSegment.run

    def send_and_note(process, job):
        moments.append(("job", time.monotonic()))
        return send_job(process, job)

    def run_and_note(segment, *args):
        answer = run(segment, *args)
        moments.append(("result", time.monotonic()))
        return answer

    monkeypatch.setattr(ChildProcess, "send_job", send_and_note)
    monkeypatch.setattr(ClaimedSegment, "run", run_and_note)
    return moments


def between_segments(relay, moments):
    """Round trips of the worker's own connection between each result and the next job."""
    own = {flight.connection for flight in relay.flights if b"INTO tmsearch_segment" in flight.message}
    counts = []
    for (what, since), (_, until) in itertools.pairwise(moments):
        if what == "result":
            counts.append(sum(flight.connection in own and since <= flight.time < until for flight in relay.flights))
    return counts


def test_few_round_trips_between_two_segments_and_at_the_end(tmp_path, relay, moments):
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(relay.url), space, 5)
    assert work(ledger, space, tmp_path / "toy")[0] == "done"
    count = len(relay.flights)
    assert all(trial.published == trial.revision for trial in ledger.history())
    counts = between_segments(relay, moments)
    assert len(counts) > 5
    assert 0 < max(counts) <= BETWEEN_SEGMENTS, counts
    assert sum(flight.time > moments[-1][1] for flight in relay.flights[:count]) <= AT_THE_END


def test_few_round_trips_beside_other_workers(tmp_path, relay):
    space = toy_space(tmp_path)
    config = space.budget.scheduler_config
    here, there = ProcessId.current(), ProcessId("elsewhere", "other", 7, "7")
    ledger = toy_study(open_storage(relay.url), space, 9)
    other = open_study(open_storage(relay.url), "toy")
    own, others = ledger.claim(here, config), other.claim(there, config)
    for claim, x in ((own, 1.0), (others, 2.0)):
        ledger.set_params(claim, {"x": x, "kind": "plain"}, {"x": x, "kind": "plain"}, "start")
    other.commit(others, 1.0, {}, config)
    start = len(relay.flights)
    state, claim = ledger.commit_and_claim(own, SegmentOutcome(0.5, {}), config, here)
    assert (state, claim.number) == ("paused", 0)
    assert ledger.history()[1].value == 1.0
    fresh = ledger.claim(here, config)
    start = len(relay.flights)
    state, claim = ledger.commit_and_claim(claim, SegmentOutcome(0.25, {}), config, here)
    assert ledger.set_params(fresh, DRAWN, DRAWN, "sampled")
    assert ledger.facts()
    assert len(relay.flights) - start <= BETWEEN_SEGMENTS
    start = len(relay.flights)
    assert ledger.renew(claim, {"step": 1}) == (True, False)
    assert len(relay.flights) - start == 2


def test_publishing_takes_as_many_round_trips_whatever_was_published_before(tmp_path, relay):
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(relay.url), space, 60)
    counts = []
    for count in (1, 18, 1, 1):
        for _ in range(count):
            ledger.append("added", DRAWN, DRAWN)
        publisher = Publisher(ledger, space, pytest.fail, ToyCurator())
        start = len(relay.flights)
        assert publisher.publish()
        counts.append(len(relay.flights) - start)
    assert max(counts[1:]) <= PUBLISHING, counts
    assert max(counts[2:]) == counts[1], counts
    start = len(relay.flights)
    assert publisher.publish()
    assert len(relay.flights) - start == 1, "there is nothing to publish"


class Waiting(ToyCurator):
    """Makes no note before some more results are there."""

    def __init__(self, more):
        super().__init__()
        self.is_asked = threading.Event()
        self.may_go = threading.Event()
        self.results = more
        self.is_free = False

    def annotate(self, configuration):
        self.is_asked.set()
        self.is_free = self.may_go.wait(60)
        return super().annotate(configuration)

    def count(self, *_):
        if self.is_asked.is_set():
            self.results -= 1
        if self.results <= 0:
            self.may_go.set()


def test_no_training_waits_for_what_is_published(tmp_path, relay):
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(relay.url), space, 8)
    annotator, watcher = Waiting(more=3), Watcher()
    watcher.rung = annotator.count
    child = ChildProcess(CHILD)
    try:
        worker = Worker(
            ledger, space, KNOBS, child, tmp_path / "toy", {"step_seconds": 0.05}, watcher, annotator=annotator
        )
        assert worker.run(Interrupts()) == "done"
    finally:
        child.close()
    assert annotator.is_free, "segments went on while a note was made"


def test_a_connection_that_died_while_it_was_idle_is_replaced(cluster, relay, monkeypatch):
    storage = open_storage(relay.url)
    schema.create(storage)
    cluster.kill(signal.SIGKILL)
    assert storage.optuna.get_all_studies() == [], "also one that was last used before anybody noted when"
    monkeypatch.setattr(postgres_module, "PING_AFTER_SECONDS", 0.0)
    cluster.kill(signal.SIGKILL)
    assert storage.optuna.get_all_studies() == []
