"""Programs that start at once on a database without tables, and a server that passes nothing."""

import contextlib
import multiprocessing
import socket
import threading
import time

import optuna
import pytest

from search import study
from search.errors import RunError, StorageUnavailableError
from search.storage import postgres as patient
from search.storage import schema
from search.storage.database import open_storage
from tests.support.toy_study import toy_space, toy_study

RUNS = 6


def make_tables(url, ready, failures):
    try:
        ready.wait()
        schema.create(open_storage(url))
        assert study.names(open_storage(url)) == []
        failures.put("")
    except BaseException as error:
        failures.put(f"{type(error).__name__}: {error}")


def failures_of(url):
    context = multiprocessing.get_context("fork")
    ready, failures = context.Barrier(RUNS), context.Queue()
    processes = [context.Process(target=make_tables, args=(url, ready, failures)) for _ in range(RUNS)]
    for process in processes:
        process.start()
    messages = [failures.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    return [message for message in messages if message]


def test_first_runs_on_a_new_file_do_not_race(tmp_path):
    assert failures_of(f"sqlite:///{tmp_path}/new/db.sqlite") == []
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names <= {"db.sqlite", "db.sqlite-wal", "db.sqlite-shm"}, "no lock is left"


def test_first_runs_on_a_new_database_do_not_race(postgres):
    assert failures_of(postgres) == []


class Tunnel:
    """A TCP port before a server's socket that can stop passing anything while both connections stay open."""

    def __init__(self, target):
        self._target = target
        self.is_silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            self._copy(source, sink)
        sink.close()

    def _copy(self, source, sink):
        while data := source.recv(65536):
            if not self.is_silent:
                sink.sendall(data)
        sink.close()


@pytest.fixture
def tunnel(cluster):
    return Tunnel(f"{cluster.folder}/.s.PGSQL.5432")


def through(tunnel):
    return open_storage(f"postgresql://tester@127.0.0.1:{tunnel.port}/postgres?sslmode=disable")


def test_a_connection_that_passes_nothing_is_given_up(tunnel, tmp_path, monkeypatch):
    monkeypatch.setattr(patient, "SILENT_SECONDS", 1.0)
    ledger = toy_study(through(tunnel), toy_space(tmp_path), 1)
    tunnel.is_silent = True
    for call in (ledger.record, lambda: ledger.storage.optuna.get_all_studies()):
        start = time.monotonic()
        with pytest.raises((StorageUnavailableError, optuna.exceptions.StorageInternalError)):
            call()
        assert time.monotonic() - start < 15
    tunnel.is_silent = False
    assert ledger.record().trials == 1, "and it is used again once it answers"


def test_who_leaves_at_once_waits_for_no_server(tunnel, tmp_path):
    storage = through(tunnel)
    ledger = toy_study(storage, toy_space(tmp_path), 1)
    tunnel.is_silent = True
    threading.Timer(0.5, storage.hurry).start()
    start = time.monotonic()
    with pytest.raises(StorageUnavailableError):
        ledger.record()
    assert time.monotonic() - start < 5


def test_a_database_whose_tables_are_gone_is_not_waited_for(postgres, tmp_path):
    for url in (postgres, f"sqlite:///{tmp_path}/db.sqlite"):
        ledger = toy_study(open_storage(url), toy_space(tmp_path), 1)
        with ledger.storage.write() as connection:
            schema.metadata.drop_all(connection)
        with pytest.raises(RunError, match="the database is not there, or was removed") as caught:
            ledger.record()
        assert not isinstance(caught.value, StorageUnavailableError), "a worker would wait for it"
