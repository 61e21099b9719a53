"""Notes and artifacts in Optuna: there before a trial is told, once, whatever is killed; a person's words stay."""

import json
import re
import sqlite3

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna_dashboard import get_note, save_note
from sqlalchemy.engine.default import DefaultDialect

from search import study as studies
from search.dashboard.annotator import Annotation, Attachment
from search.dashboard.artifacts import ArtifactFolder, artifacts_folder
from search.dashboard.notes import SEPARATOR, write_note
from search.dashboard.optuna_batch import OptunaBatch
from search.dashboard.publisher import Publisher
from search.dashboard.publisher_lease import PublisherLease
from search.doctor import Doctor
from tests.support.toy_study import Watcher, toy_space, toy_storage, toy_study, work

LONG = "word " * 1000  # more than one of the pieces that a note is kept in


class ToyCurator:
    """Tells of toys."""

    value_name = "loss"

    def __init__(self):
        self.rounds = 0

    def open(self, history, keep_turn):
        self.keep_turn = keep_turn
        self.rounds += 1
        self.history = history

    def study_note(self, study_id):
        return f"# the toy study\n\n{LONG}"

    def annotate(self, configuration):
        files = (
            Attachment("x.csv", "text/csv", f"x\n{configuration.number}\n".encode()),
            Attachment("o.png", "image/png", b"dots"),
        )
        return Annotation(f"# trial {configuration.number}\n\n{configuration.reason}\n\n{LONG}", files)

    def close(self):
        self.history = None


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that ended, with nobody to publish it with notes yet: as a file to copy."""
    folder = tmp_path_factory.mktemp("done")
    ledger = toy_study(toy_storage(folder), toy_space(folder), 3)
    work(ledger, toy_space(folder), folder / "toy")
    optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    ledger.storage.engine.dispose()
    ledger.storage.optuna.engine.dispose()
    return folder


@pytest.fixture
def ledger(done, tmp_path):
    with sqlite3.connect(done / "db.sqlite") as old, sqlite3.connect(tmp_path / "db.sqlite") as new:
        old.backup(new)
    return studies.open_study(toy_storage(tmp_path), "toy")


def published(ledger):
    return optuna.load_study(study_name="toy", storage=ledger.storage.optuna)


def publish(ledger, folder, notice=pytest.fail, annotator=None):
    Publisher(ledger, toy_space(folder), notice, annotator or ToyCurator()).publish()


def shown(ledger):
    """All that a person sees and hears: notes, and names, kinds and contents of artifacts."""
    study, storage = published(ledger), ledger.storage.optuna
    store = FileSystemArtifactStore(str(artifacts_folder(ledger.storage)))
    contents = [get_note(study)]
    for trial in study.trials:
        files = [
            (meta.filename, meta.mimetype, store.open_reader(meta.artifact_id).read())
            for meta in get_all_artifact_meta(trial, storage=storage)
        ]
        contents.append((trial.user_attrs["configuration"], trial.state, note_of(study, trial), files))
    return contents


def note_of(study, trial):
    return get_note(optuna.Trial(study, trial._trial_id))


def files(ledger):
    return sorted(path.name for path in artifacts_folder(ledger.storage).iterdir())


def test_every_trial_has_its_note_and_artifacts(ledger, tmp_path):
    annotator = ToyCurator()
    publish(ledger, tmp_path, annotator=annotator)
    assert (annotator.rounds, annotator.history) == (1, None)
    study = published(ledger)
    assert (get_note(study), study.metric_names) == (annotator.study_note(1), ["loss"])
    for trial, configuration in zip(study.trials, ledger.history(), strict=True):
        assert note_of(study, trial) == annotator.annotate(configuration).note
        table, picture = get_all_artifact_meta(trial, storage=ledger.storage.optuna)
        assert (table.filename, table.mimetype) == ("x.csv", "text/csv")
        store = FileSystemArtifactStore(str(artifacts_folder(ledger.storage)))
        copy = str(tmp_path / f"copy-{configuration.number}")
        download_artifact(artifact_store=store, artifact_id=picture.artifact_id, file_path=copy)
        assert (tmp_path / f"copy-{configuration.number}").read_bytes() == b"dots"
    assert len(files(ledger)) == 6


class Killed(BaseException):
    pass


class Steps:
    """Counts what is written to the database and the disk, and dies before the step of a number, or in its middle."""

    def __init__(self, monkeypatch, fatal):
        self.taken, self.fatal = 0, fatal
        execute = DefaultDialect.do_execute
        write = self.step(execute)

        def execute_or_die(dialect, cursor, statement, *args):
            do = write if statement.startswith(("INSERT", "UPDATE")) else execute
            return do(dialect, cursor, statement, *args)

        monkeypatch.setattr(DefaultDialect, "do_execute", execute_or_die)
        monkeypatch.setattr("search.paths.os.fsync", self.step(lambda descriptor: None))
        monkeypatch.setattr("search.paths.Path.replace", self.step(lambda path, to: path.rename(to)))
        monkeypatch.setattr(OptunaBatch, "write", self.step(OptunaBatch.write))
        monkeypatch.setattr(PublisherLease, "take", self.step(PublisherLease.take))

    def step(self, do):
        def taken(*args, **named):
            self.taken += 1
            if self.taken == self.fatal:
                raise Killed
            return do(*args, **named)

        return taken


def test_killed_between_any_two_steps(ledger, tmp_path, monkeypatch):
    """Every other step of one publishing is the last; the next publishing comes to the same, with no file too many."""
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = revision WHERE number > 0")
    with monkeypatch.context() as patched:
        steps = Steps(patched, fatal=0)
        publish(ledger, tmp_path)
    wanted, kept_files = shown(ledger), files(ledger)
    assert steps.taken > 20
    for fatal in range(1, steps.taken + 1):
        optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
        for path in artifacts_folder(ledger.storage).iterdir():
            path.unlink()
        with ledger.storage.write() as connection:
            connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0 WHERE number = 0")
        with monkeypatch.context() as patched:
            Steps(patched, fatal)
            with pytest.raises(Killed):
                publish(ledger, tmp_path)
        publish(ledger, tmp_path)
        assert shown(ledger) == wanted, fatal
        shelf = ArtifactFolder(ledger.storage, ledger.record())
        assert len(files(ledger)) == len(kept_files)
        assert shelf.orphans() == []
        assert shelf.dangling() == {}
        assert ledger.history()[0].published == ledger.history()[0].revision


def test_publishing_again_writes_nothing(ledger, tmp_path):
    publish(ledger, tmp_path)
    before, kept_files = shown(ledger), files(ledger)
    publish(ledger, tmp_path)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    publish(ledger, tmp_path)
    assert (shown(ledger), files(ledger)) == (before, kept_files)


def test_what_a_person_wrote_stays(ledger, tmp_path):
    publish(ledger, tmp_path)
    study = published(ledger)
    save_note(study, "")
    save_note(optuna.Trial(study, study.trials[0]._trial_id), "sounds like wind")
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    publish(ledger, tmp_path)
    assert get_note(study) == "", "who deletes the study's note does not want it again"
    assert note_of(study, study.trials[0]) == "sounds like wind"


@pytest.mark.parametrize("by_hand", ["mine", "mine " * 900])
@pytest.mark.parametrize("kept_share", [1.0, 0.5, 0.01, 0.0])
def test_ours_comes_below_a_persons_once(ledger, tmp_path, kept_share, by_hand):
    """Also where a kill left only its beginning."""
    publish(ledger, tmp_path)
    study = published(ledger)
    trial = optuna.Trial(study, study.trials[0]._trial_id)
    note = get_note(trial)
    below = SEPARATOR + note
    save_note(trial, by_hand + below[: int(len(below) * kept_share)])
    write_note(trial, note)
    assert get_note(trial) == by_hand + below
    write_note(trial, note)
    assert get_note(trial) == by_hand + below


def test_a_deleted_study_is_published_again_with_notes_and_artifacts(ledger, tmp_path):
    publish(ledger, tmp_path)
    before = shown(ledger)
    optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
    notices = []
    publisher = Publisher(ledger, toy_space(tmp_path), notices.append, ToyCurator())
    publisher.check()
    publisher.publish()
    assert shown(ledger) == before
    assert "published again" in notices[0]


def test_a_successor_has_its_own(ledger, tmp_path):
    publish(ledger, tmp_path)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql(
            "UPDATE tmsearch_configuration SET published = 0, state = 'failed', failure = 'crashed' WHERE number = 1"
        )
    publish(studies.open_study(ledger.storage, "toy"), tmp_path)
    first, second = (trial for trial in shown(ledger)[1:] if trial[0] == 1)
    assert (first[2], first[3]) == (second[2], second[3])
    assert len(set(files(ledger))) == 8, "a file deleted with one of them stays with the other"


def test_want_of_a_note_holds_nothing_up(ledger, tmp_path):
    class Broken(ToyCurator):
        def annotate(self, configuration):
            raise ValueError("no ink")

    notices = []
    publish(ledger, tmp_path, notices.append, Broken())
    assert len(published(ledger).trials) == 3
    assert notices[0] == "trial 0 is published without its note: ValueError: no ink"


def test_delete_takes_the_files_too(ledger, tmp_path):
    publish(ledger, tmp_path)
    study = published(ledger)
    by_hand = {"artifact_id": "00-11", "filename": "mine.txt", "mimetype": "text/plain", "encoding": None}
    ledger.storage.optuna.set_study_system_attr(study._study_id, "artifacts:00-11", json.dumps(by_hand))
    folder = artifacts_folder(ledger.storage)
    (folder / "00-11").write_text("uploaded in the dashboard")
    (folder / "another-studys").write_text("not ours")
    (folder / f".{ArtifactFolder(ledger.storage, ledger.record())._study_prefix}-cut-short.17").write_text("")
    studies.delete(ledger)
    assert files(ledger) == ["another-studys"]


def artifacts_diagnosis(ledger, folder):
    annotator = ToyCurator()
    doctor = Doctor(ledger, folder / "toy", lambda path, trial: None, annotator)
    return next(diagnosis for diagnosis in doctor.examine() if diagnosis.name == "artifacts")


def test_doctor_finds_and_mends(ledger, tmp_path):
    publish(ledger, tmp_path)
    assert artifacts_diagnosis(ledger, tmp_path).state == "ok"
    names, folder = files(ledger), artifacts_folder(ledger.storage)
    mark = ArtifactFolder(ledger.storage, ledger.record())._study_prefix
    (folder / f"{mark}-00000099-abc").write_text("of a trial that is gone")
    (folder / f".{mark}-00000001-abc.7").write_text("cut short")
    (folder / "another-studys").write_text("not ours")
    diagnosis = artifacts_diagnosis(ledger, tmp_path)
    assert (diagnosis.state, "2 files" in diagnosis.message) == ("bad", True)
    diagnosis.repair()
    (folder / "another-studys").unlink()
    assert files(ledger) == names
    (folder / names[0]).unlink()
    diagnosis = artifacts_diagnosis(ledger, tmp_path)
    assert (diagnosis.state, "1 files are gone" in diagnosis.message) == ("note", True)
    diagnosis.repair()
    assert files(ledger) == names
    assert artifacts_diagnosis(ledger, tmp_path).state == "ok"


def test_a_worker_publishes_them(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    from search.execution.child_process import ChildProcess
    from search.execution.worker import Interrupts, Worker
    from tests.support.toy_study import CHILD, KNOBS

    child, watcher = ChildProcess(CHILD), Watcher()
    worker = Worker(ledger, toy_space(tmp_path), KNOBS, child, tmp_path / "toy", {}, watcher, annotator=ToyCurator())
    try:
        worker.run(Interrupts())
    finally:
        child.close()
    assert [trial[3][0][0] for trial in shown(ledger)[1:]] == ["x.csv"] * 2
    assert shown(ledger)[0].startswith("# the toy study")


def test_a_note_does_not_read_the_notes_of_all(ledger, tmp_path, monkeypatch):
    """Optuna keeps them among the study's attributes: read for each trial, that was the square of the trials."""
    noted = []
    listings = []
    real_load = OptunaBatch.load
    real_listing = ArtifactFolder._files

    def load(batch, trials, **options):
        real_load(batch, trials, **options)
        keys = batch.get_study_system_attrs(batch.study_id)
        noted.append({key.split(":")[1] for key in keys if re.fullmatch(r"dashboard:\d+:note.*", key)})

    def listing(folder, prefix):
        listings.append(prefix)
        return real_listing(folder, prefix)

    publish(ledger, tmp_path)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0 WHERE number = 0")
        connection.exec_driver_sql("UPDATE trials SET state = 'RUNNING' WHERE number = 0")
    monkeypatch.setattr(OptunaBatch, "load", load)
    monkeypatch.setattr(ArtifactFolder, "_files", listing)
    publish(ledger, tmp_path)
    assert noted == [{"1"}], "of Optuna's first trial, not of all three"
    assert len(listings) == 1


def test_whoever_makes_pictures_slowly_keeps_the_turn_to_publish(ledger, tmp_path, monkeypatch):
    """On a busy machine a trial's pictures take longer than a lease lasts."""

    class Slow(ToyCurator):
        def annotate(self, configuration):
            with ledger.storage.write() as connection:
                connection.exec_driver_sql("UPDATE tmsearch_study SET publisher_until = 1")  # the lease has run out
            self.keep_turn()
            with ledger.storage.read() as connection:
                ends.append(connection.exec_driver_sql("SELECT publisher_until FROM tmsearch_study").scalar())
            return super().annotate(configuration)

    ends = []
    monkeypatch.setattr("search.dashboard.publisher.RENEWED_AFTER", 0.0)
    publish(ledger, tmp_path, annotator=Slow())
    assert len(ends) == 3
    assert min(ends) > 1
