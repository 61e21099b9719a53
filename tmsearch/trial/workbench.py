"""What the training process keeps loaded from one job to the next: the corpus and the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tmsearch.config import DataConfig
from tmsearch.errors import InputError
from tmsearch.trial.facts import DataFacts

if TYPE_CHECKING:
    import torch

    from tmsearch.data.augmentation.supplement import Supplement
    from tmsearch.data.corpus import Corpus
    from tmsearch.data.splits import Split
    from tmsearch.features.dataset import Speech
    from tmsearch.features.log_mel import LogMels
    from tmsearch.training.train import ModelCache


CLOSE_SECONDS = 8.0  # the supervisor kills a process that takes ten


class Workbench:
    """The decoded corpus and the last model."""

    def __init__(self) -> None:
        self._corpora: dict[DataConfig, Corpus] = {}
        self._model_cache: ModelCache | None = None
        self._supplements: dict[tuple[DataConfig, Split], Supplement] = {}
        self._kept_mels: dict[tuple[str, torch.device], LogMels] = {}

    @property
    def model_cache(self) -> ModelCache:
        """The last model and its training state."""
        from tmsearch.training.train import ModelCache

        if self._model_cache is None:
            self._model_cache = ModelCache()
        return self._model_cache

    def close(self) -> None:
        """Lets the checkpoint that is being written get to the disk, as long as the supervisor waits for this."""
        if self._model_cache is not None:
            self._model_cache.writer().linger(CLOSE_SECONDS)

    def corpus(self, data: DataConfig) -> Corpus:
        """The corpus, loaded at the first call. Raises InputError."""
        from tmsearch.data import corpus

        as_read = dataclasses.replace(
            data, normalizer=None, keep=None, extra=(), air_column=None, air_channel=None, noise=None
        )
        if as_read not in self._corpora:
            self._corpora[as_read] = corpus.load(as_read)
        return self._corpora[as_read]

    def kept_speech(self, data: DataConfig, cache: Path) -> Speech:
        """The speech of `data.keep`, which must be given. Raises InputError."""
        from tmsearch.evaluation import kept

        try:
            corpus = self.corpus(kept.dataset(data))
        except InputError as error:
            raise InputError(f"data.keep: {str(error).replace('data.dataset', 'data.keep')}") from None
        return kept.speech(corpus, data, cache)

    def supplement(self, data: DataConfig, split: Split) -> Supplement:
        """What is trained on beside the corpus, loaded at the first call for a split. Raises InputError."""
        from tmsearch.data.augmentation.supplement import load_supplement

        key = (data, split)
        if key not in self._supplements:
            corpus = self.corpus(dataclasses.replace(data, fold=0))
            # Another fold's validation clips were trained on, and may be in the extra speech.
            supplement = load_supplement(data, corpus, split, self.corpus, with_copies=data.fold > 0)
            self._supplements[key] = supplement
        return self._supplements[key]

    def speech(self, data: DataConfig, facts: DataFacts, cache: Path) -> Speech:
        """The corpus with the split that the study was made with.

        Args:
            data: the study's, with the trial's fold.
            facts: what the study keeps of its data.
            cache: folder of log-mels.

        Raises:
            InputError: the data has changed since the study was made, or cannot be read.
        """
        from tmsearch.data.splits import Split, folded
        from tmsearch.features.dataset import Speech

        corpus = self.corpus(dataclasses.replace(data, fold=0))
        if corpus.fingerprint != facts.fingerprint:
            raise InputError(
                f"data.dataset: {data.dataset} changed since the study was made ({facts.clips} clips then, "
                f"{len(corpus.clips)} now); pin data.revision, put the old files back, or start --study NEW"
            )
        split = Split(facts.train, facts.validation, facts.test, facts.grouped_by)
        if data.fold:
            split = folded(split, corpus, data)
        supplement = self.supplement(data, split)
        if supplement.fingerprint != facts.supplement:
            raise InputError(
                "data.extra: what is trained on beside the dataset changed since the study was made; put the old files "
                "back, or start --study NEW"
            )
        return Speech(corpus, split, data.language, data.task, cache, data.normalizer, supplement, kept=self._kept_mels)
