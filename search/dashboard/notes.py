"""Notes in optuna-dashboard: the program's are written once, and what a person wrote there stays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage

from search.errors import first_line

SEPARATOR = "\n\n---\n\n"  # between what a person wrote and the program's note
# The study attribute that tells that the study's note was written: who deletes it does not want it again.
WRITTEN = "tmsearch:note"
# What Optuna's Study.set_metric_names sets: that one is still experimental, and warns on the terminal.
METRIC_NAMES = "study:metric_names"
# The last line of a note that may be written anew: how long the note above it is, and its basis. A link's definition
# in Markdown, which is not shown.
_BASIS = re.compile(r"\n\[//\]: # \(tmsearch: (\d+) (.*)\)\n")
_ATTRIBUTES = sa.text(
    "SELECT key, value_json FROM study_system_attributes WHERE study_id = :study AND substr(key, 1, :length) = :prefix"
)
_PIECE = re.compile(r"dashboard:(\d+):note_str:(\d+)")


def set_value_name(study: optuna.Study, name: str) -> None:
    """Set what the value of a trial is called in the dashboard."""
    if _attributes(study._storage, study._study_id, METRIC_NAMES).get(METRIC_NAMES) != [name]:
        study._storage.set_study_system_attr(study._study_id, METRIC_NAMES, [name])


def write_study_note(study: optuna.Study, note: str) -> None:
    """Write the study's note, if that was never done."""
    if _attributes(study._storage, study._study_id, WRITTEN).get(WRITTEN):
        return
    write_note(study, note)
    study._storage.set_study_system_attr(study._study_id, WRITTEN, True)


def with_basis(note: str, basis: str) -> str:
    """A note that tells what it rests on, so that `bases` and `replace_note` can find it."""
    return f"{note}\n[//]: # (tmsearch: {len(note)} {basis})\n"


def bases(study: optuna.Study) -> Mapping[int, str]:
    """The basis of each trial's note, by Optuna's id of the trial; not of notes without one."""
    pieces: dict[int, dict[int, str]] = {}
    attributes: Mapping[str, Any] = study._storage.get_study_system_attrs(study._study_id)
    for key, text in attributes.items():
        match = _PIECE.fullmatch(key)
        if match:
            pieces.setdefault(int(match[1]), {})[int(match[2])] = str(text)
    known = {}
    for trial_id, texts in pieces.items():
        note = "".join(texts[index] for index in sorted(texts))
        for match in _BASIS.finditer(note):
            known[trial_id] = match[2]
    return known


def replace_note(trial: optuna.Trial, note: str, basis: str) -> None:
    """Put a note in the place of the one that `with_basis` made; a person's words around it stay."""
    from optuna_dashboard import get_note, save_note

    owner = _owner(trial)
    text = get_note(owner)
    matches = list(_BASIS.finditer(text))
    if not matches:
        return
    line = matches[-1]
    start = max(0, line.start() - int(line[1]))
    save_note(owner, text[:start] + with_basis(note, basis) + text[line.end() :])


def write_note(noted: optuna.Study | optuna.Trial, note: str) -> None:
    """Write a note below what a person wrote; an earlier writing of it, whole or cut short, is replaced."""
    from optuna_dashboard import get_note, save_note

    owner = _owner(noted)
    current = get_note(owner)
    wanted = _with_note(current, note)
    if wanted != current:
        save_note(owner, wanted)


def _owner(noted: optuna.Study | optuna.Trial) -> optuna.Study | optuna.Trial:
    """What optuna-dashboard reads and writes the note of; for a trial it reads that trial's attributes alone.

    It keeps the notes of all trials among the study's attributes, and reads all of them three times a note: that grew
    with the square of the trials.
    """
    if isinstance(noted, optuna.Study):
        return noted
    return cast(optuna.Trial, _NotedTrial(noted))


class _NotedTrial:
    """A trial with a storage that knows of no note but the trial's."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.study = trial.study
        self.storage = _NoteStorage(trial)
        self._trial_id = trial._trial_id


class _NoteStorage:
    """The part of Optuna's storage that optuna-dashboard's notes use."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._storage = trial.study._storage
        self._prefix = f"dashboard:{trial._trial_id}:"

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return _attributes(self._storage, study_id, self._prefix)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(study_id, key, value)


def _with_note(text: str, note: str) -> str:
    """`text` with the whole of `note` at its end."""
    if note.startswith(text):  # empty, cut short, or whole
        return note
    below = SEPARATOR + note
    # A note is kept in pieces, written one after the other: any beginning of ours may be there.
    for length in range(len(below), len(SEPARATOR), -1):
        if text.endswith(below[:length]):
            return text[: len(text) - length] + below
    return text + below


def _attributes(storage: BaseStorage, study_id: int, prefix: str) -> dict[str, Any]:
    """The study's system attributes whose key begins with `prefix`; all of them from a storage without a database."""
    backend = getattr(storage, "_backend", storage)
    if not isinstance(backend, RDBStorage):
        return storage.get_study_system_attrs(study_id)
    values = {"study": study_id, "prefix": prefix, "length": len(prefix)}
    try:
        with backend.engine.connect().execution_options(tmsearch_reads=True) as connection:
            rows = connection.execute(_ATTRIBUTES, values).all()
    except sa.exc.SQLAlchemyError as error:  # as Optuna's own reading says it
        raise optuna.exceptions.StorageInternalError(first_line(error)) from error
    return {row.key: json.loads(row.value_json) for row in rows}
