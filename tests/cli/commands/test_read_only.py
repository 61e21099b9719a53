"""Studies in a file or folder that cannot be written are looked at as any others."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from search import study
from search.dashboard.artifacts import ArtifactFolder
from search.errors import UserError
from search.storage.database import open_storage
from tests.support.command import SPACE, environment
from tests.support.study_builder import Plan, random_study
from tests.support.toy_study import toy_space, toy_storage, toy_study


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    plan = Plan(configurations=4, clips=20, validation=4, seconds=0.4)
    return random_study(tmp_path_factory.mktemp("built"), plan).storage.folder


def test_a_run_and_its_plan_say_at_once_where_nothing_can_be_written(built, tmp_path):
    """Before the data and the models are looked at, which takes seconds to minutes."""
    (tmp_path / "space.yaml").write_text(SPACE)
    mode = tmp_path.stat().st_mode
    tmp_path.chmod(0o555)
    try:
        for more in ((), ("--dry-run",)):
            done = looking(tmp_path, "run", "--space", "space.yaml", *more)
            assert (done.returncode, done.stdout) == (2, "")
            expected = f"tmsearch: {tmp_path}: cannot be written; make it writable, or work in another folder\n"
            assert done.stderr == expected
    finally:
        tmp_path.chmod(mode)
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
    (tmp_path / "studies").write_text("")
    in_the_way = looking(tmp_path, "run", "--space", "space.yaml", "--dry-run")
    assert in_the_way.stderr == f"tmsearch: {tmp_path}/studies: the folder cannot be made: it is a file; rename it\n"


def looking(folder, *words, **variables):
    """A command of a user whom the file system's permissions bind, root too."""
    binds = []
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv may write everywhere")
        binds = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    return subprocess.run(
        [*binds, sys.executable, "-m", "tmsearch", *words],
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_study_in_a_read_only_folder_is_shown_and_not_changed(built, tmp_path):
    studies = tmp_path / "studies"
    shutil.copytree(built, studies)
    paths = [studies, *studies.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        for words in (("list",), ("status", "made"), ("best", "made"), ("show", "made", "0"), ("report", "made")):
            done = looking(tmp_path, *words)
            assert (done.returncode, done.stderr) == (0, ""), words
            assert "made" in done.stdout
        for words in (
            ("add", "made", "warmup_steps=50"),
            ("confirm", "made"),
            ("confirm", "made", "--dry-run"),
            ("delete", "made", "--yes"),
        ):
            refused = looking(tmp_path, *words)
            assert refused.returncode == 2
            assert "read-only" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        assert [studies, *studies.rglob("*")] == paths, "nothing was made"
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize("locked", ["made", "made/trials/0001", "artifacts", "link"])
def test_a_study_is_not_deleted_by_halves_where_a_folder_of_its_own_is_read_only(built, tmp_path, locked):
    """The database can be written; and nobody is asked first."""
    studies = tmp_path / "studies"
    shutil.copytree(built, studies)
    ledger = study.open_study(open_storage(f"sqlite:///{studies}/tmsearch.db"), "made")
    (studies / "artifacts").mkdir(exist_ok=True)
    (studies / "artifacts" / f"{ArtifactFolder(ledger.storage, ledger.record())._study_prefix}-x").write_text("x")
    folder = studies / locked
    if locked == "link":
        (tmp_path / "links").mkdir()
        shutil.move(studies / "made", tmp_path / "disk")
        (tmp_path / "links" / "made").symlink_to(tmp_path / "disk")
        folder = tmp_path / "links"
    variables = {"TMSEARCH_STUDIES": str(folder)} if locked == "link" else {}
    paths = sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(("-wal", "-shm")))
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        for more in (("--yes",), ()):
            refused = looking(
                tmp_path, "delete", "made", *more, "--storage", f"sqlite:///{studies}/tmsearch.db", **variables
            )
            assert (refused.returncode, refused.stdout) == (2, "")
            message = f"made: nothing was deleted: {folder} cannot be written; make it writable"
            assert refused.stderr == f"tmsearch: {message}\n"
    finally:
        folder.chmod(mode)
    assert all(path.exists() or path.is_symlink() for path in paths)
    assert study.names(open_storage(f"sqlite:///{studies}/tmsearch.db")) == ["made"]


def test_what_a_killed_writer_left_in_its_log_is_read(tmp_path, monkeypatch):
    storage = toy_storage(tmp_path)
    ledger = toy_study(storage, toy_space(tmp_path), 5)
    ledger.set_trials(7)
    copy = tmp_path / "copy"
    copy.mkdir()
    for ending in ("", "-wal"):  # without the index, as after a kill and a restart of the machine
        shutil.copy(tmp_path / f"db.sqlite{ending}", copy)
    assert (copy / "db.sqlite-wal").stat().st_size
    names = sorted(os.listdir(copy))
    monkeypatch.setattr("search.storage.database._can_write", lambda file: False)
    looked_at = study.open_study(open_storage(f"sqlite:///{copy}/db.sqlite"), "toy")
    assert looked_at.record().trials == 7
    assert sorted(os.listdir(copy)) == names
    with pytest.raises(UserError, match="is read-only"):
        looked_at.set_trials(9)
    with sqlite3.connect(copy / "db.sqlite") as connection:
        assert connection.execute("SELECT trials FROM tmsearch_study").fetchone() == (7,)
