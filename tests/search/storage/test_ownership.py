"""Every study's files belong to one study of one database, whatever shares the folder with it."""

import json
import os
import shutil

import optuna
import pytest
import yaml

from search import study
from search.dashboard.artifacts import artifacts_folder
from search.dashboard.publisher import Publisher
from search.doctor import Doctor
from search.errors import RunError, UserError
from search.storage import ownership
from search.storage.database import open_storage
from tests.support.toy_study import Watcher, toy_space, toy_study, work


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def storage_of(folder, file="a.db"):
    return open_storage(f"sqlite:///{folder}/{file}")


def searched(folder, file="a.db", trials=3):
    """A finished study in this database, with its files."""
    space = toy_space(folder)
    ledger = toy_study(storage_of(folder, file), space, trials)
    assert work(ledger, space, ownership.claimed_folder(ledger))[0] == "done"
    ledger.storage.engine.dispose()  # the file alone holds everything now
    ledger.storage.optuna.engine.dispose()
    return ledger


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "toy").rglob("*") if path.is_file()}


def test_a_study_of_another_database_is_not_made_over_the_files_of_the_first(folder):
    first = searched(folder)
    before = files_of(folder)
    with pytest.raises(UserError, match=r"holds files of the study toy of .*/a\.db; move or remove the folder"):
        toy_study(storage_of(folder, "b.db"), toy_space(folder), 3)
    assert not (folder / "b.db").exists()
    assert files_of(folder) == before
    assert ownership.foreign(first) is None


def test_two_databases_that_start_at_once_do_not_both_get_the_folder(folder):
    ledgers = [toy_study(storage_of(folder, file), toy_space(folder), 3) for file in ("a.db", "b.db")]
    ownership.claimed_folder(ledgers[0])
    with pytest.raises(UserError, match="holds files of the study toy"):
        ownership.claimed_folder(ledgers[1])


def test_a_copy_of_a_database_neither_reads_nor_repairs_nor_deletes_the_files_of_the_first(folder):
    first = searched(folder)
    artifact = artifacts_folder(first.storage) / f"{ownership.unique_name(first)}"
    artifact.parent.mkdir()
    artifact.touch()
    shutil.copy(folder / "a.db", folder / "copy.db")
    copy = study.open_study(storage_of(folder, "copy.db"), "toy")
    before = files_of(folder)
    with pytest.raises(UserError, match="move the folder away"):
        ownership.checked_folder(copy)
    doctor = Doctor(copy, folder / "toy", lambda path, trial: None, foreign=ownership.foreign(copy))
    diagnoses = {diagnosis.name: diagnosis for diagnosis in doctor.examine()}
    assert diagnoses["files"].state == "bad"
    assert not any(diagnosis.repair for diagnosis in diagnoses.values())
    assert "its files were left" in study.delete(copy)[0]
    assert study.names(copy.storage) == []
    assert files_of(folder) == before
    assert artifact.exists()


def test_a_database_keeps_its_files_when_both_are_moved_or_copied(folder):
    searched(folder)
    (folder / "a.db").rename(folder / "renamed.db")
    assert ownership.foreign(study.open_study(storage_of(folder, "renamed.db"), "toy")) is None
    for name in ("tree", "moved"):
        shutil.copytree(folder, folder.with_name(f"{folder.name}-{name}"))
    for name in ("tree", "moved"):
        elsewhere = folder.with_name(f"{folder.name}-{name}")
        assert ownership.foreign(study.open_study(storage_of(elsewhere, "renamed.db"), "toy")) is None
    assert ownership.foreign(study.open_study(storage_of(folder, "renamed.db"), "toy")) is None


def test_files_of_a_database_that_is_gone_are_not_adopted(folder):
    searched(folder)
    for path in folder.glob("a.db*"):
        path.unlink()
    with pytest.raises(UserError, match=r"a\.db, which is gone; move or remove the folder"):
        toy_study(storage_of(folder), toy_space(folder), 3)


def test_files_of_a_deleted_study_are_not_adopted(folder):
    first = searched(folder)
    shutil.copytree(folder / "toy", folder / "kept")
    assert study.delete(first) == []
    assert not (folder / "toy").exists()
    second = toy_study(storage_of(folder), toy_space(folder), 3)
    (folder / "kept").rename(folder / "toy")
    assert "holds files of the study toy" in (ownership.foreign(second) or "")


def without_owner(folder, ledger):
    """The study's folder as version 0.1.0 left it."""
    record = ledger.record()
    (folder / "toy" / ownership.OWNER_FILE).unlink()
    (folder / "toy" / "space.yaml").write_text(yaml.safe_dump(dict(record.space)))
    for trial in ledger.history():
        recipe = {"train": dict(trial.params), "threads": 1}
        (folder / "toy" / "trials" / f"{trial.number:04d}" / "config.yaml").write_text(yaml.safe_dump(recipe))
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("DELETE FROM tmsearch_meta WHERE key = 'identity'")


def test_a_folder_without_owner_is_adopted_where_the_ledger_has_its_trials(folder):
    ledger = searched(folder)
    without_owner(folder, ledger)
    assert ownership.foreign(ledger) is None
    owner = ownership.read_owner(folder / "toy")
    assert owner is not None
    assert owner.database == ownership.identity(ledger.storage)


@pytest.mark.parametrize("file", ["space.yaml", "trials/0001/config.yaml", "trials/0099/config.yaml"])
def test_a_folder_without_owner_that_holds_other_trials_is_refused(folder, file):
    ledger = searched(folder)
    without_owner(folder, ledger)
    (folder / "toy" / file).parent.mkdir(exist_ok=True)
    (folder / "toy" / file).write_text("{train: {x: 99.5}}")
    assert "files of unknown origin" in (ownership.foreign(ledger) or "")
    assert not (folder / "toy" / ownership.OWNER_FILE).exists()


NAMES = ("artifacts", "Artifacts", "a.db", "a.db-wal", "a.db-shm", "tmsearch.db", "tmsearch.db-journal", "b.db-journal")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_collides_with_a_file_of_ours_is_refused(folder, name):
    (folder / "b.db").touch()
    with pytest.raises(UserError, match="choose another name"):
        study.check_unused(storage_of(folder), name)
    assert sorted(os.listdir(folder)) == ["b.db"]


def test_deletion_removes_what_a_linked_folder_leads_to(folder):
    ledger = searched(folder)
    (folder / "disk").mkdir()
    (folder / "toy").rename(folder / "disk" / "toy")
    (folder / "toy").symlink_to(folder / "disk" / "toy")
    assert study.delete(ledger) == []
    assert not (folder / "toy").is_symlink()
    assert os.listdir(folder / "disk") == []


def test_a_deletion_that_fails_is_said_and_can_be_repeated(folder, monkeypatch):
    ledger = searched(folder)
    with monkeypatch.context() as broken:
        broken.setattr(ownership, "remove", lambda path: [f"{path}: Read-only file system"])
        with pytest.raises(RunError, match=r"not deleted, its files could not be removed: .*Read-only file system"):
            study.delete(ledger)
    assert study.names(ledger.storage) == ["toy"]
    assert study.delete(ledger) == []
    assert study.names(ledger.storage) == []


def test_what_a_link_inside_the_folder_leads_to_is_left_and_said(folder):
    ledger = searched(folder)
    (folder / "disk").mkdir()
    (folder / "toy" / "tensorboard").symlink_to(folder / "disk")
    assert "was a link" in study.delete(ledger)[0]
    assert (folder / "disk").is_dir()


def persons_study(storage):
    with_trials = optuna.create_study(study_name="toy", storage=storage.optuna)
    with_trials.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    return with_trials


def test_an_optuna_study_of_a_person_is_not_taken_over(folder):
    persons_study(storage_of(folder))
    with pytest.raises(UserError, match="an Optuna study of this name that tmsearch did not make"):
        toy_study(storage_of(folder), toy_space(folder), 3)
    assert study.names(storage_of(folder)) == []


def test_a_study_that_another_process_makes_meanwhile_is_told_from_a_persons(folder):
    searched(folder)
    study.check_unused(storage_of(folder), "toy")
    with pytest.raises(UserError, match="made by another process just now"):
        toy_study(storage_of(folder), toy_space(folder), 3)


def test_an_optuna_study_that_a_person_made_meanwhile_is_neither_written_to_nor_deleted(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 3)
    persons = persons_study(ledger.storage)
    with pytest.raises(UserError, match="that tmsearch did not make"):
        work(ledger, toy_space(folder), ownership.claimed_folder(ledger))
    for trial in ledger.history():
        assert trial.state != "running"
    assert "was left" in study.delete(ledger)[0]
    assert len(persons.trials) == 2
    assert persons.user_attrs == {}


def test_a_search_ends_where_its_database_is_removed(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 6)
    watcher = Watcher()

    def remove(number, event):
        for path in folder.glob("a.db*"):
            path.unlink()

    watcher.on_progress = remove
    with pytest.raises(RunError, match="the database was removed or replaced"):
        work(ledger, toy_space(folder), ownership.claimed_folder(ledger), watcher=watcher)
    assert len(watcher.claims) == 1
    assert not list(folder.glob("a.db*")), "made again, without the study"


def test_a_search_ends_where_its_database_is_replaced(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 6)
    shutil.copy(folder / "a.db", folder / "other.db")
    watcher = Watcher()
    watcher.on_progress = lambda number, event: (folder / "other.db").exists() and os.replace("other.db", "a.db")
    with pytest.raises(RunError, match="the database was removed or replaced"):
        work(ledger, toy_space(folder), ownership.claimed_folder(ledger), watcher=watcher)


def test_a_search_ends_where_its_study_is_made_anew(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 6)
    ledger.record()
    study.delete(study.open_study(storage_of(folder), "toy"))
    toy_study(storage_of(folder), toy_space(folder), 6)
    with pytest.raises(RunError, match="deleted and made again"):
        work(ledger, toy_space(folder), folder / "toy")


def test_a_search_ends_where_its_folder_becomes_another_studys(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 6)
    own_folder = ownership.claimed_folder(ledger)
    watcher = Watcher()

    def replace(number, event):
        file = own_folder / ownership.OWNER_FILE
        file.write_text(json.dumps({**json.loads(file.read_text()), "database": "another"}))

    watcher.on_progress = replace
    with pytest.raises(RunError, match="since this study started"):
        work(ledger, toy_space(folder), own_folder, watcher=watcher)


def test_a_folder_that_is_removed_meanwhile_is_made_again_with_its_owner(folder):
    ledger = toy_study(storage_of(folder), toy_space(folder), 3)
    own_folder = ownership.claimed_folder(ledger)
    watcher = Watcher()
    watcher.on_progress = lambda number, event: number or (own_folder / ownership.OWNER_FILE).unlink(missing_ok=True)
    assert work(ledger, toy_space(folder), own_folder, watcher=watcher)[0] == "done"
    assert ownership.foreign(ledger) is None
    assert ownership.read_owner(own_folder) is not None


def test_a_worker_that_publishes_marks_the_study_as_its_own(folder):
    ledger = searched(folder)
    published = optuna.load_study(study_name="toy", storage=ledger.storage.optuna)
    assert published.user_attrs["tmsearch"] == "test"
    assert Publisher(ledger, toy_space(folder), lambda text: None).publish()


def test_a_server_and_a_file_do_not_share_a_studys_files(folder, postgres, monkeypatch):
    searched(folder)
    monkeypatch.setenv("TMSEARCH_STUDIES", str(folder))
    server = open_storage(postgres)
    with pytest.raises(UserError, match="holds files of the study toy"):
        toy_study(server, toy_space(folder), 3)
    study.delete(study.open_study(storage_of(folder), "toy"))
    ledger = toy_study(server, toy_space(folder), 3)
    owner = ownership.read_owner(ownership.claimed_folder(ledger))
    assert owner is not None
    assert owner.storage.startswith("postgresql://")
    assert "@" not in owner.storage
    with pytest.raises(UserError, match="holds files of the study toy of postgresql"):
        toy_study(storage_of(folder), toy_space(folder), 3)
