"""A study's note: how to read the dashboard, and the commands for what it has no button for."""

import dataclasses
import re
import shlex

from tests.support.study_builder import hostile_study
from tmsearch.cli.parser import parse
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.media.trial_note import StudyNote, study_note

NOTE = StudyNote(
    name="large_v3",
    trials=20,
    data="data demo",
    judged="100, 200, 400 and 800",
    max_steps=800,
    strategy="halving",
    searched=["learning_rate"],
    fixed={},
    models=["demo/nano"],
    report="/reports/large_v3",
    without_pruned="/dashboard/studies/7/trials?exclude=Pruned",
    storage="sqlite:////data/my studies/tmsearch.db",
    queued="learning_rate=1e-05",
)


def commands(note):
    shell = re.search(r"```sh\n(.*?)```", note, re.DOTALL)[1]
    return [line for line in shell.splitlines() if not line.startswith("#")]


def test_every_command_parses_and_names_study_and_storage():
    given = commands(study_note(NOTE))
    assert len(given) == 6
    for line in given:
        program, *words = shlex.split(line)
        assert program == "tmsearch"
        arguments = parse(words)
        assert arguments.study == "large_v3"
        assert arguments.storage == NOTE.storage
    assert any("resume large_v3 --trials 40" in line for line in given)


def test_states_and_the_pruned_ones_are_explained():
    note = study_note(NOTE)
    assert "*waiting* is paused or queued" in note
    assert f"]({NOTE.without_pruned})" in note
    assert "*Fail Trial* stops nothing" in note


def test_a_password_is_never_in_it():
    assert "PGPASSWORD" not in study_note(NOTE)
    assert "PGPASSWORD" in study_note(dataclasses.replace(NOTE, storage="postgresql://me@host/db"))


def test_a_studys_own_note_names_its_own_database_and_a_legal_recipe(tmp_path):
    ledger = hostile_study(tmp_path)
    annotator = StudyAnnotator(ledger, print)
    annotator.open(ledger.history(), lambda: None)
    note = annotator.study_note(7)
    assert f"--storage sqlite:///{ledger.storage.file}" in note
    (add,) = [line for line in commands(note) if line.startswith("tmsearch add made_up ")]
    assert shlex.split(add)[3] in ("learning_rate=1e-06", "model=demo/nano")
    assert "/dashboard/studies/7/trials?exclude=Pruned" in note
