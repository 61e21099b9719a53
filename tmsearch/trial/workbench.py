"""What stays loaded in the training process between jobs: the corpus, the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tmsearch.config import DataConfig
from tmsearch.errors import InputError
from tmsearch.trial.facts import DataFacts

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus
    from tmsearch.features.dataset import Speech
    from tmsearch.training.train import ModelCache


class Workbench:
    """What stays warm between jobs: the corpus, decoded; the model."""

    def __init__(self) -> None:
        self._corpora: dict[DataConfig, Corpus] = {}
        self._model_cache: ModelCache | None = None

    @property
    def model_cache(self) -> ModelCache:
        """The last model and its training state."""
        from tmsearch.training.train import ModelCache

        self._model_cache = self._model_cache or ModelCache()
        return self._model_cache

    def corpus(self, data: DataConfig) -> Corpus:
        """Loaded once; a child works on one study."""
        from tmsearch.data import corpus as clips

        if data not in self._corpora:
            self._corpora[data] = clips.load(data)
        return self._corpora[data]

    def speech(self, data: DataConfig, facts: DataFacts, cache: Path) -> Speech:
        """The study's speech with the study's own split; raises InputError where the data is no longer the same."""
        from tmsearch.data.splits import Split, folded
        from tmsearch.features.dataset import Speech

        corpus = self.corpus(dataclasses.replace(data, fold=0))
        if corpus.fingerprint != facts.fingerprint:
            raise InputError(
                f"data.dataset: {data.dataset} changed since the study began ({facts.clips} clips then, "
                f"{len(corpus.clips)} now); pin data.revision, put the old files back, or start --study NEW"
            )
        split = Split(facts.train, facts.validation, facts.test, facts.grouped_by)
        split = folded(split, corpus, data) if data.fold else split
        return Speech(corpus, split, data.language, data.task, cache)
