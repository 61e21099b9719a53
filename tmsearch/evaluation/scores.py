"""The scores of an evaluation, clip by clip, and their table on disk: JSON lines, read without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch.files import write_atomically

LONG_OBJECTIVES = ("wer_long", "mean")  # which take the validation clips as long recordings, at every rung
NEAR_SECONDS = 0.2  # a time in a long recording is right if it is no further from a clip's start or end


@dataclass(frozen=True)
class ClipScore:
    """One clip's texts as they are, and the edits between them after normalization."""

    name: str
    reference: str
    hypothesis: str
    substitutions: int
    deletions: int
    insertions: int
    words: int  # of the normalized reference
    raw_edits: int = 0  # between the texts as they are
    raw_words: int = 0
    character_edits: int | None = None  # of the normalized texts; None: a table of before 0.2.0
    characters: int | None = None

    @property
    def edits(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Of this clip alone. Where its reference has no words: 0, or 1 if the hypothesis has some."""
        return self.edits / self.words if self.words else float(self.edits > 0)


@dataclass(frozen=True)
class Scores:
    """Error rates over clips, edits summed before dividing: `wer` and `cer` normalized, `wer_raw` as written."""

    wer: float
    wer_raw: float
    cer: float
    clips: tuple[ClipScore, ...]
    loops: int = 0  # clips whose hypothesis repeated itself without end, counted with all its words
    eval_batch: int = 0  # clips decoded together, in the end: fewer than asked for where memory ran out
    wer_long: float | None = None  # of the same clips as long recordings, where they were heard so

    def rate(self, objective: str) -> float:
        """What is minimised, one of wer, cer, wer_long and mean; the WER where a long recording was not heard."""
        if objective == "cer":
            return self.cer
        if objective not in LONG_OBJECTIVES or self.wer_long is None:
            return self.wer
        return self.wer_long if objective == "wer_long" else (self.wer + self.wer_long) / 2


def clip_objective(objective: str) -> str:
    """What single clips are scored by in a study of this objective: cer, else wer."""
    return "cer" if objective == "cer" else "wer"


def measure_name(objective: str) -> str:
    """An objective for a person, as the engine calls it."""
    return {"wer_long": "long WER", "mean": "mean WER"}.get(objective, objective.upper())


def baseline_folder(study_folder: Path, model: str) -> Path:
    """The folder of the zero-shot baseline's table, which is at step 0."""
    return study_folder / "baselines" / model.replace("/", "--")


def scores_file(folder: Path, step: int) -> Path:
    """The file of the evaluation at `step`."""
    return folder / f"clips-{step:06d}.jsonl"


def write_scores(folder: Path, step: int, scores: Sequence[ClipScore]) -> Path:
    """Writes the table of one evaluation, a ClipScore a line, and returns its file."""
    file = scores_file(folder, step)
    lines = [json.dumps(dataclasses.asdict(score), ensure_ascii=False) + "\n" for score in scores]
    write_atomically(file, "".join(lines))
    return file


def read_scores(folder: Path, step: int) -> tuple[ClipScore, ...]:
    """The table of the evaluation at `step`; empty where the file is not here, as after training on another machine."""
    file = scores_file(folder, step)
    if not file.is_file():
        return ()
    return tuple(ClipScore(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines())


def worst_first(clips: Sequence[ClipScore]) -> list[ClipScore]:
    """The clips by word errors, the most first; equal ones by rate, then by name."""
    return sorted(clips, key=lambda clip: (-clip.edits, -clip.wer, clip.name))
