"""What a fine-tune forgets: other speech, `data.keep`, scored beside the study's own and never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate
from tmsearch.features.dataset import Speech
from tmsearch.model.whisper import Whisper

MOST_CLIPS = 200  # that are scored, the same ones each time: a standard error of .01 to .02 in WER


def dataset(data: DataConfig) -> DataConfig:
    """How the dataset `data.keep` is read: by its own columns, in the study's language."""
    assert data.keep is not None
    return DataConfig(dataset=data.keep, language=data.language, task=data.task, max_dropped=data.max_dropped)


def speech(corpus: Corpus, data: DataConfig, cache: Path) -> Speech:
    """At most MOST_CLIPS clips of the kept dataset, drawn by their names, as the validation split of a `Speech`."""
    names = sorted((clip.name for clip in corpus.clips), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    kept = tuple(sorted(names[:MOST_CLIPS]))
    return Speech(corpus, Split((), kept, ()), data.language, data.task, cache, data.normalizer)


def wer(whisper: Whisper, kept: Speech, config: TrainConfig, stop: Callable[[], bool] = lambda: False) -> float:
    """WER of a model on those clips of the kept speech that it takes whole, each padded as its users do.

    Raises:
        InputError: it takes none, or a text is longer than its decoder's.
        EvaluationInterruptedError: `stop` was true.
    """
    fitting = [clip.name for clip in kept.clips(kept.split.validation) if clip.seconds <= whisper.seconds]
    try:
        return evaluate.evaluate(whisper, kept, fitting, config, context="full", stop=stop)[0].wer
    except InputError as error:
        raise InputError(f"data.keep: {error}") from None
