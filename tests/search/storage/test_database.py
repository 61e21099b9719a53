"""URLs, locking, versions; and that nothing is ever claimed twice."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from search import study
from search.errors import RunError, UserError
from search.process_id import ProcessId
from search.space.search_space import Space
from search.storage import database, schema
from search.storage.database import open_storage
from tests.support.toy_study import toy_space, toy_storage, toy_study


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "mysql is not supported"),
        ("nonsense", "no database URL"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///file:x.db", "name a file"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite:///x.db?foo=bar", "takes no parameters"),
        ("sqlite+pysqlcipher://:secret1@/x.db", "not supported"),
        ("postgresql://me@h/db?foo=bar", "no parameter foo"),
        ("postgresql://me@h/db?Password=secret1", "no parameter Password"),
        ("postgresql://me@h/db?dbname=secret1", "no parameter dbname"),
        ("postgresql://me:se@secret1@h/db", "write @ as %40"),
        ("postgresql://me:se@secret1/x@h/db", "write @ as %40"),
        ("postgresql://me:se@secret1?x@h/db", "write @ as %40"),
        ("postgresql://me:se@secret1:x@h/db", "write @ as %40"),
        ("postgresql:///db?host=secret1@h", "write @ as %40"),
        ("postgresql://h/password=secret1", "the database's name"),
        ("postgresql://me:secret1@h/db?password=secret1", "given twice"),
    ],
)
def test_other_databases_are_refused(url, message):
    with pytest.raises(UserError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert "secret1" not in str(caught.value)


def test_sqlite_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    shared = tmp_path / "my share"
    shared.mkdir()
    escaped = str(shared).replace(" ", "\\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\nbroken\n")
    assert database.filesystem_type(shared / "studies", str(mounts)) == "nfs4"
    assert database.filesystem_type(tmp_path, str(mounts)) == "ext4"
    assert database.filesystem_type(tmp_path, str(tmp_path / "none")) is None
    filesystem_type = database.filesystem_type
    monkeypatch.setattr(database, "filesystem_type", lambda path: filesystem_type(path, str(mounts)))
    with pytest.raises(UserError, match=r"network file system \(nfs4\)") as caught:
        schema.create(open_storage(f"sqlite:///{shared}/studies/db.sqlite"))
    assert "\n" not in str(caught.value)
    assert not list(shared.iterdir()), "nothing is written"


def test_a_password_is_never_shown():
    storage = open_storage("postgresql://me:hunter2@localhost/db")
    assert "hunter2" not in storage.display_name
    assert "hunter2" not in str(storage)
    with pytest.raises(UserError) as caught:
        open_storage("postgres//me:hunter2@localhost")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@localhost/db",
        "postgresql://me:hunter%402@localhost/db",
        "postgresql://me@localhost/db?password=hunter2&sslmode=disable",
        "postgresql://me@localhost/db?sslpassword=hunter2",
    ],
)
def test_every_password_that_the_driver_takes_is_known_and_hidden(url):
    storage = open_storage(url)
    assert "hunter" not in storage.display_name
    assert storage.display_name.startswith("postgresql://me")
    assert "hunter" not in storage.command_line_url
    assert storage.command_line_url.startswith("postgresql://me")
    _, parameters = storage.url.get_dialect()().create_connect_args(storage.url)
    assert "hunter" in str({key: value for key, value in parameters.items() if "password" in key})
    assert open_storage(storage.url.render_as_string(hide_password=False)) == storage, "workers get it whole"


def test_looking_makes_nothing(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/none/db.sqlite")
    assert study.names(storage) == []
    with pytest.raises(UserError, match="no such study"):
        study.open_study(storage, "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "db.sqlite").write_text("what " * 1000)
    with pytest.raises(UserError, match="not a SQLite database"):
        study.names(toy_storage(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_database_is_one_line(tmp_path, damage):
    storage = toy_storage(tmp_path)
    schema.create(storage)
    storage.engine.dispose()
    file = tmp_path / "db.sqlite"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 2 // 3]
    else:
        content[200:-200] = b"?" * (len(content) - 400)
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"the database is damaged: .*malformed; put a copy in its place") as refused:
        study.names(toy_storage(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_newer_schema_is_refused(tmp_path):
    storage = toy_storage(tmp_path)
    schema.create(storage)
    with storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_meta SET value = '99'")
    with pytest.raises(UserError, match="schema version 99"):
        study.names(storage)


def test_an_older_schema_is_upgraded(tmp_path):
    storage = toy_storage(tmp_path)
    toy_study(storage, toy_space(tmp_path), 2)
    with storage.write() as connection:
        connection.exec_driver_sql("ALTER TABLE tmsearch_configuration DROP COLUMN target")
        connection.exec_driver_sql("ALTER TABLE tmsearch_study DROP COLUMN stop_reason")
        connection.exec_driver_sql("ALTER TABLE tmsearch_segment DROP COLUMN version")
        connection.exec_driver_sql("DROP TABLE tmsearch_worker")
        connection.exec_driver_sql("UPDATE tmsearch_meta SET value = '1'")
    ledger = study.open_study(storage, "toy")
    assert ledger.claim(ProcessId.current(), toy_space(tmp_path).budget.scheduler_config).number == 0
    assert ledger.history()[0].target == 2
    ledger.sign_in(ProcessId.current(), "here", "1")
    ledger.request_stop("why")
    assert ledger.record().stop_reason == "why"


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises((UserError, RunError), match="the folder cannot be made"):
        schema.create(open_storage(f"sqlite:///{file}/db.sqlite"))


def test_unknown_study_names_those_there_are(tmp_path):
    storage = toy_storage(tmp_path)
    toy_study(storage, toy_space(tmp_path), 1)
    with pytest.raises(UserError, match="there is: toy"):
        study.open_study(storage, "toi")


def claim_all(url, ready, claimed):
    """One of many workers: every segment that it is given, to the end of the study."""
    ledger = study.open_study(open_storage(url), "toy")
    scheduler_config = Space.from_json(dict(ledger.record().space)).budget.scheduler_config
    ready.wait()
    claims = []
    while (claim := ledger.claim(ProcessId.current(), scheduler_config)) is not None:
        if claim.params is None:
            params = {"x": claim.number / 1000, "kind": "plain"}  # no two alike
            ledger.set_params(claim, params, params, "sampled")
        state = ledger.commit(claim, 1.0 / claim.last_step, {}, scheduler_config)
        claims.append((claim.number, claim.last_step, state))
    claimed.put(claims)


def claim_with(url, workers):
    """What each of so many processes was given, together; forked, since what is imported is imported once."""
    context = multiprocessing.get_context("fork")
    ready, claimed = context.Barrier(workers), context.Queue()
    processes = [context.Process(target=claim_all, args=(url, ready, claimed)) for _ in range(workers)]
    for process in processes:
        process.start()
    claims = [claim for _ in processes for claim in claimed.get(timeout=200)]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return claims


def assert_none_twice(ledger, given, trials):
    work = [(number, step) for number, step, _ in given]
    assert len(work) == len(set(work)), "a segment was given to two workers"
    assert all(state is not None for *_, state in given)
    assert [trial.number for trial in ledger.history()] == list(range(trials))
    assert all(trial.rungs for trial in ledger.history())


@pytest.mark.parametrize(("workers", "queued"), [(16, 96), (8, 0)])
def test_workers_claim_nothing_twice_on_sqlite(tmp_path, workers, queued):
    storage = toy_storage(tmp_path)
    ledger = toy_study(storage, toy_space(tmp_path), queued or 60)
    for _ in range(queued):
        ledger.append("added", {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"})
    storage.engine.dispose()
    assert_none_twice(ledger, claim_with(str(storage.url), workers), queued or 60)


@pytest.mark.parametrize(("workers", "queued"), [(64, 128), (8, 0)])
def test_workers_claim_nothing_twice_on_postgresql(tmp_path, postgres, workers, queued):
    storage = open_storage(postgres)
    ledger = toy_study(storage, toy_space(tmp_path), queued or 60)
    for _ in range(queued):
        ledger.append("added", {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"})
    storage.engine.dispose()
    assert_none_twice(ledger, claim_with(postgres, workers), queued or 60)


def test_a_whole_search_on_postgresql(tmp_path, postgres, monkeypatch):
    import optuna

    from tests.support.toy_study import told, work

    monkeypatch.setenv("TMSEARCH_STUDIES", str(tmp_path / "studies"))
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(postgres.replace("tester@", "tester:hunter2@")), space, 4)
    assert work(ledger, space, tmp_path / "a" / "toy")[0] == "done"
    same = toy_study(toy_storage(tmp_path), space, 4)
    work(same, space, tmp_path / "b" / "toy")
    assert told(ledger) == told(same)
    assert len(optuna.load_study(study_name="toy", storage=ledger.storage.optuna).trials) == 4
    with ledger.storage.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = [str(row) for table in tables for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"')]
    assert len(rows) > 20
    assert not any("hunter2" in row for row in rows), "a password reached a database row"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "pg" not in path.parts]
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_sqlite_waits_for_a_writer(tmp_path):
    storage = toy_storage(tmp_path)
    ledger = toy_study(storage, toy_space(tmp_path), 2)
    other = sqlite3.connect(storage.file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    assert ledger.history() == (), "readers do not wait"
    import threading

    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    assert ledger.claim(ProcessId.current(), toy_space(tmp_path).budget.scheduler_config) is not None


def test_delete_removes_everything(tmp_path):
    import optuna

    from tests.support.toy_study import work

    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 2)
    work(ledger, space, tmp_path / "toy")
    study.delete(ledger)
    assert study.names(storage) == []
    assert not (tmp_path / "toy").exists()
    assert optuna.get_all_study_names(storage.optuna) == []
    toy_study(storage, space, 2)


def test_delete_refuses_while_a_worker_is_on_it(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 2)
    claim = ledger.claim(ProcessId.current(), space.budget.scheduler_config)
    with pytest.raises(UserError, match="tmsearch stop toy"):
        study.delete(ledger)
    ledger.release(claim)
    study.delete(ledger)


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path):
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 1)
    process = subprocess.run(
        [sys.executable, "-c", "from search.process_id import ProcessId; print(ProcessId.current())"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    dead = ProcessId.parse(process.stdout.strip())
    assert dead.known_dead()
    assert not ProcessId.current().known_dead()
    assert ledger.claim(dead, space.budget.scheduler_config).number == 0
    assert ledger.history()[0].state == "paused"
    assert ledger.claim(ProcessId.current(), space.budget.scheduler_config).number == 0
