"""Transcripts that may be wrong: an untrained model transcribes every clip, and its hypotheses are compared to them."""

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
    """Every clip that was transcribed, the most doubtful first; `too_long` clips exceed the model's context."""

    model: str
    wer: float
    scores: tuple[ClipScore, ...]
    too_long: int


def transcribe(corpus: Corpus, data: DataConfig, name: str, cache: Path) -> LabelCheck:
    """Evaluates model `name` on the whole corpus, as for a zero-shot baseline.

    Raises:
        InputError: The model cannot be loaded, or does not fit the texts.
    """
    config = TrainConfig(model=name)
    whisper = model.load(config)
    devices.move(whisper.model, devices.device())
    clips = tuple(clip for clip in corpus.clips if clip.seconds <= whisper.seconds)
    names = tuple(clip.name for clip in clips)
    split = Split(train=(), validation=names, test=())
    unlocked = dataclasses.replace(corpus, clips=clips)
    speech = Speech(unlocked, split, data.language, data.task, cache, data.normalizer)
    scores = evaluate.zero_shot(config, speech, whisper)
    return LabelCheck(name, scores.wer, ranked(scores.clips), len(corpus.clips) - len(clips))


def ranked(scores: Sequence[ClipScore]) -> tuple[ClipScore, ...]:
    """The most doubtful transcript first: by the share of its words in error, then by their number.

    A model that repeats itself says nothing about the transcript, so insertions beyond its length do not count.
    """

    def doubt(score: ClipScore) -> tuple[float, int, str]:
        errors = score.substitutions + score.deletions + min(score.insertions, score.words)
        return (-errors / max(1, score.words), -errors, score.name)

    return tuple(sorted(scores, key=doubt))
