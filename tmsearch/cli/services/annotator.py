"""Notes and attachments of a study's trials for its dashboard, made in a process of their own."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from search.dashboard.annotator import Annotation, Attachment
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.wire import MessageError
from search.imported import compares
from search.paths import study_folder, trial_folder
from search.process_id import ProcessId
from search.records import IMPORTED, Configuration, Rung, StudyRecord, default_configuration
from search.space.distributions import Choice
from search.space.search_space import Space
from search.storage.ledger import Ledger
from tmsearch import job_server
from tmsearch.cli.services.plan import data_line, models
from tmsearch.cli.view.format import model_of
from tmsearch.media.trial_note import (
    MEDIA_FOLDER,
    MEDIA_LIST,
    NoteMedia,
    StudyNote,
    TrialComparison,
    TrialNote,
    study_note,
    trial_note,
)
from tmsearch.trial.facts import StudyFacts

# For one trial. A second or two of work, and on a machine that trains on all of its cores as much as a minute.
PATIENCE_SECONDS = 180.0
REPORTS = "/reports/"  # where the dashboard's server has each study's report


class StudyAnnotator:
    """The annotator of one study. A process makes what needs pictures and sounds, and lasts for one round."""

    def __init__(self, ledger: Ledger, notice: Callable[[str], None]) -> None:
        self.value_name = ledger.record().measure
        self._ledger = ledger
        self._notice = notice
        self._folder = study_folder(ledger.storage.folder, ledger.study)
        self._child: ChildProcess | None = None

    def open(self, history: Sequence[Configuration], keep_turn: Callable[[], object]) -> None:
        self._history = history
        self._keep_turn = keep_turn
        self._facts = StudyFacts.from_json(self._ledger.facts())
        self._record: StudyRecord = self._ledger.record()
        self._problem: str | None = None  # why the process is not used any more in this round
        # A confirmation compares in its own way.
        self._default = None if self._facts.confirms else default_configuration(history)

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def study_note(self, study_id: int) -> str:
        space = Space.from_json(dict(self._record.space))
        note = StudyNote(
            name=self._record.name,
            trials=self._record.trials,
            data=data_line(space.data["dataset"], self._facts.known_data),
            judged=space.budget.judged,
            max_steps=space.budget.max_steps,
            strategy=space.budget.strategy,
            measure=self._record.measure,
            searched=list(space.search),
            fixed=space.train,
            models=models(space),
            report=REPORTS + quote(self._record.name),
            without_pruned=f"/dashboard/studies/{study_id}/trials?exclude=Pruned",
            storage=self._ledger.storage.command_line_url,
            queued=_example(space),
        )
        return study_note(note)

    def basis(self, trial: Configuration) -> str:
        """The step at which the trial is compared with the default recipe, and where that one stands by now."""
        default = self._default
        if default is None or default.number == trial.number or trial.origin == IMPORTED:
            return "nothing"
        step = max(set(trial.curve) & set(default.curve), default=None)
        return f"trial {default.number}, {default.steps} steps, compared at {step}"

    def annotate(self, trial: Configuration) -> Annotation:
        folder = trial_folder(self._folder, trial.number)
        note = self._trial_note(trial, folder)
        if trial.origin == IMPORTED:
            return Annotation(trial_note(note, NoteMedia()))
        media = _saved_media(folder, trial, self.basis(trial)) or self._make_media(trial, note, folder)
        if "files" not in media:
            return Annotation(trial_note(note, NoteMedia(problem=media["reason"])))
        attachments = []
        for file in media["files"]:
            content = (folder / MEDIA_FOLDER / file["name"]).read_bytes()
            attachments.append(Attachment(file["name"], file["mimetype"], content))
        return Annotation(media["note"], tuple(attachments))

    def _make_media(self, trial: Configuration, note: TrialNote, folder: Path) -> dict[str, Any]:
        """The process's answer. Once it died or took too long it is not asked again in this round."""
        if self._problem:
            return {"reason": self._problem}
        if self._child is None:
            command = job_server.command("tmsearch.media.trial_files")
            one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._child = ChildProcess(command, self._folder / "exhibits.log", one_core)
        self._child.send(self._job(trial, note, folder))
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while time.monotonic() < deadline:
                answer = self._child.receive(timeout=1.0)
                if answer is not None:
                    return answer
                self._keep_turn()
            self._child.kill()
            self._problem = f"it took more than {PATIENCE_SECONDS:.0f} s"
        except MessageError as error:
            self._child.kill()
            self._problem = f"the answer of the process that makes them cannot be read: {error}"
        except ChildExitError as error:
            self._problem = f"the process that makes them ended: {error}"
        self._notice(f"trial {trial.number}: no pictures and sounds: {self._problem}")
        return {"reason": self._problem}

    def _job(self, trial: Configuration, note: TrialNote, folder: Path) -> dict[str, Any]:
        words = self._facts.words.get(_fold(trial))
        errors = trial.errors(trial.steps)
        tensorboard = self._folder / "tensorboard" / folder.name
        baseline = self._facts.baselines.get(model_of(trial))
        return {
            "trial": dataclasses.asdict(note),
            "folder": _existing(folder),
            "tensorboard": _existing(tensorboard),
            "data": dict(self._record.space["data"]),
            "zero_shot": baseline.wer if baseline else None,
            "rates": _all_or_none(errors, words),
            "basis": self.basis(trial),
            "pairs": [clip_counts for _, clip_counts in self._comparisons(trial)],
        }

    def _trial_note(self, trial: Configuration, folder: Path) -> TrialNote:
        params = trial.params or {}
        space = self._record.space
        process_ids = [ProcessId.parse(rung.worker or "") for rung in trial.rungs]
        hosts = list(dict.fromkeys(process_id.host for process_id in process_ids if process_id))
        shown_folder = str(folder)
        if trial.origin == IMPORTED:
            shown_folder = ""
        elif not folder.is_dir():
            shown_folder += f" on {', '.join(hosts) or 'another machine'}, not here"
        return TrialNote(
            number=trial.number,
            origin=trial.origin,
            state=trial.state,
            reason=trial.reason,
            failure=trial.failure,
            steps=trial.steps,
            max_steps=space["budget"]["max_steps"],
            searched={name: params[name] for name in space["search"] if name in params},
            differs=self._differences(trial),
            rungs=[_rung_row(rung) for rung in trial.rungs],
            train_seconds=trial.total("train_seconds"),
            eval_seconds=trial.total("eval_seconds"),
            folder=shown_folder,
            workers=hosts,
            measure=self._record.measure,
            versions=list(dict.fromkeys(rung.version for rung in trial.rungs if rung.version)),
            rivals=[comparison for comparison, _ in self._comparisons(trial)],
            compares=all(compares(trial, rung) for rung in trial.rungs[-1:]),
        )

    def _differences(self, trial: Configuration) -> dict[str, tuple[Any, Any]]:
        """The knobs that differ from the default recipe: the default's value and the trial's."""
        default = self._default
        if default is None or default.number == trial.number or default.params is None:
            return {}
        params = trial.params or {}
        differences = {}
        for name in dict.fromkeys([*default.params, *params]):
            values = (default.params.get(name), params.get(name))
            if values[0] != values[1]:
                differences[name] = values
        return differences

    def _comparisons(self, trial: Configuration) -> list[tuple[TrialComparison, list[Any] | None]]:
        """The trial against the untouched checkpoint and the default recipe.

        Each with the trial's errors, the other's errors, and the reference words, by clip; None where they are unknown.
        """
        if trial.value is None or trial.origin == IMPORTED:
            return []
        comparisons = []
        fold = _fold(trial)
        words = self._facts.words.get(fold)
        baseline = self._facts.baselines.get(model_of(trial))
        if baseline is not None:
            clip_counts = None
            if fold == 0:  # the baseline's errors are of that fold
                clip_counts = _all_or_none(trial.errors(trial.steps), baseline.errors, words)
            comparison = TrialComparison("untrained (zero-shot)", baseline.rate(self._record.objective), 0, trial.value)
            comparisons.append((comparison, clip_counts))
        if self._default is not None and self._default.number != trial.number:
            against_default = compared_with_default(self._facts, trial, self._default)
            if against_default is not None:
                comparisons.append(against_default)
        return comparisons


def _example(space: Space) -> str:
    """KNOB=VALUE for `tmsearch add`: a value that the space allows; what is left out is sampled."""
    name, searched = next(iter(space.search.items()))
    value = searched.values[0] if isinstance(searched, Choice) else searched.low
    return f"{name}={json.dumps(value) if not isinstance(value, str) else value}"


def compared_with_default(
    facts: StudyFacts, trial: Configuration, default: Configuration
) -> tuple[TrialComparison, list[Any] | None] | None:
    """The trial against the default recipe at the last step where both were judged on the same clips.

    With both's errors and the reference words by clip, or None where they are unknown. None without such a step:
    values at different steps do not compare.
    """
    step = max(set(trial.curve) & set(default.curve), default=None)
    if step is None or _fold(trial) != _fold(default):
        return None
    name = f"default recipe (trial {default.number})"
    comparison = TrialComparison(name, default.curve[step], step, trial.curve[step])
    words = facts.words.get(_fold(trial))
    return comparison, _all_or_none(trial.errors(step), default.errors(step), words)


def _saved_media(folder: Path, trial: Configuration, basis: str) -> dict[str, Any] | None:
    """What was made before; None where it was not, is incomplete, or belongs to an earlier result."""
    try:
        media: dict[str, Any] = json.loads((folder / MEDIA_FOLDER / MEDIA_LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_complete = all((folder / MEDIA_FOLDER / file["name"]).is_file() for file in media["files"])
    is_current = media["of"] == [trial.steps, trial.state] and media.get("basis", basis) == basis
    return media if is_complete and is_current else None


def _existing(folder: Path) -> str | None:
    return str(folder) if folder.is_dir() else None


def _all_or_none(*clip_counts: Any) -> list[Any] | None:
    """Counts by clip that are of use only together; None where one of them is not known."""
    return None if None in clip_counts else list(clip_counts)


def _fold(trial: Configuration) -> int:
    return int((trial.params or {}).get("fold", 0))


def _rung_row(rung: Rung) -> dict[str, Any]:
    metrics = rung.metrics
    return {
        "step": rung.step,
        "wer": metrics.get("wer", rung.value),
        "wer_raw": metrics.get("wer_raw"),
        "cer": metrics.get("cer"),
        "wer_long": metrics.get("wer_long"),
        "mean": metrics.get("mean"),
        "value": rung.value,
        "seconds": (metrics.get("train_seconds") or 0.0) + (metrics.get("eval_seconds") or 0.0),
    }
