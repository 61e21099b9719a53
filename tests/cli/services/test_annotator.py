"""A trial's note and files: what they say, how large they are, and that they are made once and hold nothing up."""

import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import optuna
import pytest
import soundfile
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import get_note

from search.dashboard.artifacts import artifacts_folder
from search.dashboard.publisher import Publisher
from search.paths import study_folder, trial_folder
from search.space.search_space import Space
from tests.support.command import ROOT
from tests.support.study_builder import HOSTILE_TEXTS, hostile_scores, hostile_study
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.evaluation.worst_clips import csv_table
from tmsearch.media import images, sounds, trial_files, trial_note


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    ledger = hostile_study(tmp_path_factory.mktemp("study"))
    publish(ledger)
    return ledger


def publish(ledger, notice=pytest.fail):
    space = Space.from_json(dict(ledger.record().space))
    Publisher(ledger, space, notice, StudyAnnotator(ledger, notice)).publish()


def shown(ledger, number):
    """A trial's note, and its files' contents by name."""
    study = optuna.load_study(study_name=ledger.study, storage=ledger.storage.optuna)
    trial = next(trial for trial in study.trials if trial.user_attrs["configuration"] == number)
    metas = get_all_artifact_meta(trial, storage=ledger.storage.optuna)
    folder = artifacts_folder(ledger.storage)
    attachments = {meta.filename: (meta.mimetype, (folder / meta.artifact_id).read_bytes()) for meta in metas}
    return get_note(optuna.Trial(study, trial._trial_id)), attachments


def test_the_note(ledger):
    note, _ = shown(ledger, 1)
    assert note.startswith("**WER 0.097** [")
    assert "**Why it ended:** trained in full, 80 steps" in note
    assert "| untrained (zero-shot) | 1.000 | 0.097 | -0.903 [" in note
    assert "| default recipe (trial 0), at step 20 | 0.583 | 0.292 | -0.292 [" in note
    assert note.count("| better |") == 2
    assert "learning_rate 0.0003 (default 1e-05)" in note
    assert "| 80 | 0.097 | 0.097 | 0.049 | 1:05 |" in note
    assert "**Cost:** 3:15 (3:00 training, 0:15 evaluation)" in note
    assert "**worst:** " in note
    assert "problem" not in note


def test_a_failed_one_has_a_note_and_its_recipe(ledger):
    note, files = shown(ledger, 2)
    assert note.startswith("No result. **Failed** (oom): out of memory")
    assert list(files) == ["config.yaml"]


def test_the_files(ledger):
    _, files = shown(ledger, 1)
    names = sorted(files)  # as the dashboard sorts them
    assert names[0] == "1-learning-curve.png"
    assert [name.split("-")[1] for name in names[1:7]] == ["worst", "worst", "middle", "middle", "best", "best"]
    assert names[7:] == ["config.yaml", "worst-8-clips.csv"]
    kinds = {"png": "image/png", "mp3": "audio/mpeg", "csv": "text/csv", "yaml": "text/plain; charset=utf-8"}
    assert all(kind == kinds[name.rpartition(".")[2]] for name, (kind, _) in files.items())
    for name, (_, content) in files.items():
        if name.endswith(".mp3"):
            samples, rate = soundfile.read(io.BytesIO(content))
            assert (rate, abs(samples).max() > 0.1, len(samples) >= 16_000) == (16_000, True, True)
    assert files["config.yaml"][1] == (folder_of(ledger, 1) / "config.yaml").read_bytes()
    assert sum(len(content) for _, content in files.values()) < trial_files.MAX_BYTES


def folder_of(ledger, number):
    return trial_folder(study_folder(ledger.storage.folder, ledger.study), number)


def test_no_cell_of_the_table_is_a_formula(ledger):
    _, files = shown(ledger, 1)
    rows = list(csv.DictReader(io.StringIO(files["worst-8-clips.csv"][1].decode())))
    assert len(rows) == len(HOSTILE_TEXTS)
    assert {row["errors"] for row in rows} == {"0", "1"}
    cells = [value for row in rows for value in row.values()]
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r"]
    assert max(map(len, cells)) < 600


def test_made_once(ledger):
    """Published anew after a deletion, the same comes out without anybody making it."""
    before = {number: shown(ledger, number) for number in range(4)}
    times = {path: path.stat().st_mtime_ns for path in folder_of(ledger, 1).rglob("*")}
    optuna.delete_study(study_name=ledger.study, storage=ledger.storage.optuna)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    publish(ledger)
    assert {number: shown(ledger, number) for number in range(4)} == before
    assert {path: path.stat().st_mtime_ns for path in folder_of(ledger, 1).rglob("*")} == times


def test_a_dataset_that_is_gone(tmp_path):
    ledger = hostile_study(tmp_path)
    shutil.rmtree(tmp_path / "clips")
    publish(ledger)
    note, files = shown(ledger, 1)
    assert sorted(files) == ["1-learning-curve.png", "config.yaml", "worst-8-clips.csv"]
    assert "Some files could not be made: " in note
    assert "no such file or folder" in note


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """Published after trial 0's table of clips was damaged, trial 1's recipe grew and trial 3's folder was lost."""
    ledger = hostile_study(tmp_path_factory.mktemp("spoilt"))
    (folder_of(ledger, 0) / "clips-000020.jsonl").write_text("no JSON\n")
    (folder_of(ledger, 1) / "config.yaml").write_text("#" * trial_files.MAX_BYTES)
    shutil.rmtree(folder_of(ledger, 3))
    publish(ledger)
    return ledger


def test_one_that_can_not_be_made_does_not_hinder_the_others(spoilt):
    note, files = shown(spoilt, 0)
    assert files == {}
    assert "Some files could not be made: JSONDecodeError" in note
    assert len(shown(spoilt, 1)[1]) == 8


def test_the_2_mb_of_a_trial(spoilt):
    """What comes last is left out, and the note says so."""
    note, files = shown(spoilt, 1)
    assert "config.yaml" not in files
    assert "1-learning-curve.png" in files
    assert "Left out, as the files of a trial may take no more than 2 MB: config.yaml." in note


def test_a_trial_of_another_machine(spoilt):
    note, files = shown(spoilt, 3)
    assert files == {}
    assert note.startswith("**WER 0.486** ["), "its intervals are in the database"
    assert "on another machine, not here" in note
    assert not folder_of(spoilt, 3).exists()


def test_a_process_that_dies(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr("tmsearch.job_server.sys.executable", str(program))
    ledger, notices = hostile_study(tmp_path / "study"), []
    publish(ledger, notices.append)
    note, files = shown(ledger, 1)
    assert files == {}
    assert note.startswith("**WER 0.097** at step 80")
    assert "the process that makes them ended: exit code 3" in note
    assert notices == ["trial 0: no pictures and sounds: the process that makes them ended: exit code 3"]


def test_the_largest_that_can_be():
    """Half a minute of noise three times, texts without end: still within the limit, and nothing is left out."""
    noise = np.random.default_rng(0).uniform(-1, 1, 30 * 16_000).astype(np.float32)
    texts = {"reference": "x" * 50_000, "hypothesis": "\u05e9" * 50_000}
    long = [dataclasses.replace(score, **texts) for score in hostile_scores(1)]
    table = len(csv_table(long * 5, trial_files.ROWS).encode())
    assert 3 * (len(sounds.mp3(noise)) + len(images.spectrogram(noise))) + table + 100_000 < trial_files.MAX_BYTES


def test_the_studys_note(ledger):
    study = optuna.load_study(study_name=ledger.study, storage=ledger.storage.optuna)
    note = get_note(study)
    assert "[The report](/reports/made_up)" in note
    assert "80 steps in full, judged at steps 20, 40, 80" in note
    assert "8 clips" in note


def test_words_for_a_difference():
    comparisons = [
        trial_note.TrialComparison("x", 0.5, 0, 0.4, interval)
        for interval in ((-0.2, -0.1), (-0.1, 0.1), (0.1, 0.2), None)
    ]
    assert [trial_note.verdict(comparison) for comparison in comparisons][:3] == [
        "better",
        "can't be told apart",
        "worse",
    ]
    assert trial_note.verdict(comparisons[3]) == "not compared clip by clip"


def test_the_list_is_json_and_the_process_polite(ledger):
    media = json.loads((folder_of(ledger, 1) / trial_files.MEDIA_FOLDER / trial_files.MEDIA_LIST).read_text())
    assert media["of"] == [80, "finished"]
    assert os.nice(0) < 19


def test_the_supervisor_draws_nothing_itself():
    heavy = "torch", "matplotlib", "soundfile", "tensorboard", "scipy.signal", "plotly", "jinja2"
    program = (
        "import sys, search.execution.worker, search.dashboard.publisher\n"
        "import tmsearch.cli.services.annotator, optuna_dashboard\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
