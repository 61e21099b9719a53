"""Notes in optuna-dashboard: the program's are written once, and what a person wrote there stays."""

from __future__ import annotations

import optuna

SEPARATOR = "\n\n---\n\n"  # between what a person wrote and the program's note
# The study attribute that tells that the study's note was written: who deletes it does not want it again.
WRITTEN = "tmsearch:note"
# What Optuna's Study.set_metric_names sets: that one is still experimental, and warns on the terminal.
METRIC_NAMES = "study:metric_names"


def set_value_name(study: optuna.Study, name: str) -> None:
    """Set what the value of a trial is called in the dashboard."""
    if study._storage.get_study_system_attrs(study._study_id).get(METRIC_NAMES) != [name]:
        study._storage.set_study_system_attr(study._study_id, METRIC_NAMES, [name])


def write_study_note(study: optuna.Study, note: str) -> None:
    """Write the study's note, if that was never done."""
    if study._storage.get_study_system_attrs(study._study_id).get(WRITTEN):
        return
    write_note(study, note)
    study._storage.set_study_system_attr(study._study_id, WRITTEN, True)


def write_note(owner: optuna.Study | optuna.Trial, note: str) -> None:
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
