"""Notes and exhibits of a study's trials for its dashboard, made in a process of their own."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from search.dashboard.annotator import Annotation, Attachment
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.wire import MessageError
from search.paths import study_folder, trial_folder
from search.process_id import ProcessId
from search.records import IMPORTED, Configuration, StudyRecord, default
from search.space.search_space import Space
from search.storage.ledger import Ledger
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

# Well within a publisher's lease, which is renewed for every trial.
PATIENCE_SECONDS = 40.0
REPORTS = "/reports/"  # where the dashboard's server has each study's report


class StudyAnnotator:
    """The curator of one study. A process makes what needs pictures and sounds, and lasts for one round."""

    value_name = "WER"

    def __init__(self, ledger: Ledger, notice: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._notice = notice
        self._folder = study_folder(ledger.storage.folder, ledger.study)
        self._child: ChildProcess | None = None

    def open(self, history: Sequence[Configuration]) -> None:
        self._history = history
        self._facts = StudyFacts.from_json(self._ledger.facts())
        self._record: StudyRecord = self._ledger.record()
        self._hopeless: str | None = None  # why nobody is asked any more in this round

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def study_note(self) -> str:
        space = Space.from_json(dict(self._record.space))
        return study_note(
            StudyNote(
                name=self._record.name,
                trials=self._record.trials,
                data=data_line(space.data["dataset"], self._facts.known_data),
                judged=space.budget.judged,
                max_steps=space.budget.max_steps,
                strategy=space.budget.strategy,
                searched=list(space.search),
                fixed=space.train,
                models=models(space),
            ),
            REPORTS + quote(self._record.name),
        )

    def annotate(self, one: Configuration) -> Annotation:
        folder = trial_folder(self._folder, one.number)
        told = self._told(one, folder)
        if one.origin == IMPORTED:
            return Annotation(trial_note(told, NoteMedia()))
        found = _kept(folder, one) or self._made(one, told, folder)
        if "files" not in found:
            return Annotation(trial_note(told, NoteMedia(problem=found["reason"])))
        exhibits = [
            Attachment(each["name"], each["mimetype"], (folder / MEDIA_FOLDER / each["name"]).read_bytes())
            for each in found["files"]
        ]
        return Annotation(found["note"], tuple(exhibits))

    def _made(self, one: Configuration, told: TrialNote, folder: Path) -> dict[str, Any]:
        """What the process answers. One that died or takes too long is not asked again in this round."""
        if self._hopeless:
            return {"reason": self._hopeless}
        if self._child is None:
            command = [sys.executable, "-m", "tmsearch.media.trial_files"]
            one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._child = ChildProcess(command, self._folder / "exhibits.log", one_core)
        self._child.send(self._job(one, told, folder))
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while time.monotonic() < deadline:
                said = self._child.receive(timeout=1.0)
                if said is not None:
                    return said
            self._child.kill()
            self._hopeless = f"it took more than {PATIENCE_SECONDS:.0f} s"
        except MessageError as error:
            self._child.kill()
            self._hopeless = f"what the process that makes them answers cannot be read: {error}"
        except ChildExitError as death:
            self._hopeless = f"the process that makes them ended: {death}"
        self._notice(f"trial {one.number}: no pictures and sounds: {self._hopeless}")
        return {"reason": self._hopeless}

    def _job(self, one: Configuration, told: TrialNote, folder: Path) -> dict[str, Any]:
        words = self._facts.words.get(_fold(one))
        errors = one.errors(one.steps)
        board = self._folder / "tensorboard" / folder.name
        baseline = self._facts.baselines.get(model_of(one))
        return {
            "trial": dataclasses.asdict(told),
            "folder": str(folder) if folder.is_dir() else None,
            "tensorboard": str(board) if board.is_dir() else None,
            "data": dict(self._record.space["data"]),
            "zero_shot": baseline.wer if baseline else None,
            "rates": [errors, words] if errors is not None and words is not None else None,
            "pairs": [pair for _, pair in self._rivals(one)],
        }

    def _told(self, one: Configuration, folder: Path) -> TrialNote:
        params, default = one.params or {}, self._default()
        space = self._record.space
        workers = dict.fromkeys(identity.host for rung in one.rungs if (identity := ProcessId.parse(rung.worker or "")))
        here = f"{folder}" if folder.is_dir() else f"{folder} on {', '.join(workers) or 'another machine'}, not here"
        differs = {}
        if default is not None and default.number != one.number and default.params is not None:
            names = dict.fromkeys([*default.params, *params])
            differs = {name: (default.params.get(name), params.get(name)) for name in names}
        return TrialNote(
            number=one.number,
            origin=one.origin,
            state=one.state,
            reason=one.reason,
            failure=one.failure,
            steps=one.steps,
            max_steps=space["budget"]["max_steps"],
            searched={name: params[name] for name in space["search"] if name in params},
            differs={name: pair for name, pair in differs.items() if pair[0] != pair[1]},
            rungs=[_rung(rung.step, rung.value, rung.metrics) for rung in one.rungs],
            train_seconds=one.total("train_seconds"),
            eval_seconds=one.total("eval_seconds"),
            folder="" if one.origin == IMPORTED else here,
            workers=list(workers),
            versions=list(dict.fromkeys(rung.version for rung in one.rungs if rung.version)),
            rivals=[rival for rival, _ in self._rivals(one)],
        )

    def _default(self) -> Configuration | None:
        """The default recipe's own training in this search; a confirmation compares in its own way."""
        if self._facts.confirms:
            return None
        return default(self._history)

    def _rivals(self, one: Configuration) -> list[tuple[TrialComparison, list[Any] | None]]:
        """The untouched checkpoint and the default recipe, each with errors, its errors and words by clip."""
        found: list[tuple[TrialComparison, list[Any] | None]] = []
        fold = _fold(one)
        words = self._facts.words.get(fold)
        baseline = self._facts.baselines.get(model_of(one))
        if one.value is None or one.origin == IMPORTED:
            return found
        if baseline is not None:
            pair = _pair(one.errors(one.steps), baseline.errors, words) if not fold else None
            found.append((TrialComparison("untrained (zero-shot)", baseline.wer, 0, one.value), pair))
        default = self._default()
        common = sorted(set(one.curve) & set(default.curve)) if default else []
        if default is not None and default.number != one.number and common and _fold(default) == fold:
            step = common[-1]
            rival = TrialComparison(
                f"default recipe (trial {default.number})", default.curve[step], step, one.curve[step]
            )
            found.append((rival, _pair(one.errors(step), default.errors(step), words)))
        return found


def _kept(folder: Path, one: Configuration) -> dict[str, Any] | None:
    """What was made before; None where it was not, or for a result that is no longer the last."""
    try:
        found: dict[str, Any] = json.loads((folder / MEDIA_FOLDER / MEDIA_LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = all((folder / MEDIA_FOLDER / each["name"]).is_file() for each in found["files"])
    return found if whole and found["of"] == [one.steps, one.state] else None


def _pair(one: Any, other: Any, words: Any) -> list[Any] | None:
    return [one, other, words] if one is not None and other is not None and words is not None else None


def _fold(one: Configuration) -> int:
    return int((one.params or {}).get("fold", 0))


def _rung(step: int, wer: float, metrics: Mapping[str, Any]) -> dict[str, Any]:
    seconds = (metrics.get("train_seconds") or 0.0) + (metrics.get("eval_seconds") or 0.0)
    return {"step": step, "wer": wer, "wer_raw": metrics.get("wer_raw"), "cer": metrics.get("cer"), "seconds": seconds}
