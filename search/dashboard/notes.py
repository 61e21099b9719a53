"""Notes in optuna-dashboard: ours are written once, and what a person wrote there stays."""

from __future__ import annotations

import optuna

LINE = "\n\n---\n\n"  # between what a person wrote and ours
# The study attribute that says that the study's note was written: who deletes it does not want it again.
WRITTEN = "tmsearch:note"


# What Optuna's Study.set_metric_names sets: that one is still experimental, and says so on the terminal.
METRIC_NAMES = "study:metric_names"


def name_value(study: optuna.Study, name: str) -> None:
    """What the value of a trial is called in the dashboard."""
    if study._storage.get_study_system_attrs(study._study_id).get(METRIC_NAMES) != [name]:
        study._storage.set_study_system_attr(study._study_id, METRIC_NAMES, [name])


def leave_study_note(study: optuna.Study, note: str) -> None:
    """Write the study's note, if that was never done."""
    if study._storage.get_study_system_attrs(study._study_id).get(WRITTEN):
        return
    leave_note(study, note)
    study._storage.set_study_system_attr(study._study_id, WRITTEN, True)


def leave_note(shown: optuna.Study | optuna.Trial, note: str) -> None:
    """Write a note, below what a person wrote; one that a kill cut short, or that is there, is recognised as ours."""
    from optuna_dashboard import get_note, save_note

    found = get_note(shown)
    wanted = _continued(found, note)
    if wanted != found:
        save_note(shown, wanted)


def _continued(found: str, note: str) -> str:
    """`found` with the whole of `note` at its end."""
    if note.startswith(found):  # empty, cut short, or whole
        return note
    below = LINE + note
    # A note is kept in pieces, written one after the other: any beginning of ours may be there.
    ours = next((length for length in range(len(below), len(LINE), -1) if found.endswith(below[:length])), 0)
    return found[: len(found) - ours] + below
