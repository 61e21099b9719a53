"""Transcripts that may be wrong: an untrained model hears every clip, and the two are held against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch import devices
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import ClipScore
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model


@dataclass(frozen=True)
class LabelCheck:
    """Every clip that was heard, the most doubtful first; `left_out` were longer than the model hears."""

    model: str
    wer: float
    scores: tuple[ClipScore, ...]
    too_long: int


def transcribe(corpus: Corpus, data: DataConfig, name: str, cache: Path) -> LabelCheck:
    """`name` hears the corpus as a zero-shot baseline does. Raises InputError for a model or texts that do not fit."""
    config = TrainConfig(model=name)
    whisper = model.load(config)
    devices.move(whisper.model, devices.device())
    heard = tuple(clip.name for clip in corpus.clips if clip.seconds <= whisper.seconds)
    part = dataclasses.replace(corpus, clips=tuple(clip for clip in corpus.clips if clip.name in set(heard)))
    speech = Speech(part, Split(train=(), validation=heard, test=()), data.language, data.task, cache)
    scores = evaluate.zero_shot(config, speech, whisper)
    return LabelCheck(name, scores.wer, ranked(scores.clips), len(corpus.clips) - len(heard))


def ranked(scores: Sequence[ClipScore]) -> tuple[ClipScore, ...]:
    """By how much of the text was not heard and of what was heard is not in it: WER, then errors, the worst first.

    A loop makes a long hypothesis and no wrong transcript, so insertions beyond the text's own length do not count.
    """

    def doubt(one: ClipScore) -> tuple[float, int, str]:
        wrong = one.substitutions + one.deletions + min(one.insertions, one.words)
        return (-wrong / max(1, one.words), -wrong, one.name)

    return tuple(sorted(scores, key=doubt))
