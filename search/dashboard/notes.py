"""Notes in optuna-dashboard: the program's are written once, and what a person wrote there stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import optuna

SEPARATOR = "\n\n---\n\n"  # between what a person wrote and the program's note
# The study attribute that tells that the study's note was written: who deletes it does not want it again.
WRITTEN = "tmsearch:note"
# What Optuna's Study.set_metric_names sets: that one is still experimental, and warns on the terminal.
METRIC_NAMES = "study:metric_names"
# The last line of a note that may be written anew: how long the note above it is, and its basis. A link's definition
# in Markdown, which is not shown.
_BASIS = re.compile(r"\n\[//\]: # \(tmsearch: (\d+) (.*)\)\n")
_PIECE = re.compile(r"dashboard:(\d+):note_str:(\d+)")


class AttributeStorage(Protocol):
    """What notes need of Optuna's storage."""

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]: ...
    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None: ...


class NoteOwner:
    """A study, or one of its trials, with the attributes by which optuna-dashboard finds a note.

    Args:
        storage: of the study's attributes.
        study_id: Optuna's.
        trial_id: Optuna's; None for the study itself.
    """

    def __init__(self, storage: AttributeStorage, study_id: int, trial_id: int | None = None) -> None:
        self.storage = self._storage = storage
        self._study_id = study_id
        self._trial_id = trial_id
        self.study = self


def set_value_name(study: NoteOwner, name: str) -> None:
    """Set what the value of a trial is called in the dashboard."""
    if study._storage.get_study_system_attrs(study._study_id).get(METRIC_NAMES) != [name]:
        study._storage.set_study_system_attr(study._study_id, METRIC_NAMES, [name])


def write_study_note(study: NoteOwner, note: str) -> None:
    """Write the study's note, if that was never done."""
    if study._storage.get_study_system_attrs(study._study_id).get(WRITTEN):
        return
    write_note(study, note)
    study._storage.set_study_system_attr(study._study_id, WRITTEN, True)


def with_basis(note: str, basis: str) -> str:
    """A note that tells what it rests on, so that `bases` and `replace_note` can find it."""
    return f"{note}\n[//]: # (tmsearch: {len(note)} {basis})\n"


def bases(study: NoteOwner) -> Mapping[int, str]:
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


def replace_note(trial: NoteOwner, note: str, basis: str) -> None:
    """Put a note in the place of the one that `with_basis` made; a person's words around it stay."""
    from optuna_dashboard import get_note, save_note

    text = get_note(trial)
    matches = list(_BASIS.finditer(text))
    if not matches:
        return
    line = matches[-1]
    start = max(0, line.start() - int(line[1]))
    save_note(trial, text[:start] + with_basis(note, basis) + text[line.end() :])


def write_note(owner: NoteOwner | optuna.Study | optuna.Trial, note: str) -> None:
    """Write a note below what a person wrote; an earlier writing of it, whole or cut short, is replaced."""
    from optuna_dashboard import get_note, save_note

    current = get_note(owner)
    wanted = _with_note(current, note)
    if wanted != current:
        save_note(owner, wanted)


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
