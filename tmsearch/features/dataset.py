"""The dataset of a study: a corpus, its split, its language and task; its log-mels and labels for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tmsearch.config import TrainConfig
from tmsearch.data.augmentation.supplement import Supplement
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import Split
from tmsearch.errors import InputError
from tmsearch.features import log_mel
from tmsearch.features.log_mel import LogMels
from tmsearch.model import tokens
from tmsearch.model.context import ContextRule, context_rule
from tmsearch.model.whisper import Whisper
from tmsearch.recipe import with_supplement

_KEPT = 4  # sets of log-mels: two ways to normalize, two splits
_NAMED = 3  # clips that an error names before it counts the others


@dataclass(frozen=True)
class Speech:
    """A corpus as divided for one study."""

    corpus: Corpus
    split: Split
    language: str
    task: str  # transcribe or translate
    cache: Path  # folder where log-mels are kept between trials
    normalizer: str | None = None  # one of config.NORMALIZERS; None: by the language
    supplement: Supplement = field(default_factory=Supplement)  # what is trained on beside the training split
    # What `kept_mels` keeps, by cache file and device; whoever makes one Speech after another may hand it on.
    kept: dict[tuple[str, torch.device], LogMels] = field(default_factory=dict, compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """Of all that is trained on."""
        return with_supplement(self.corpus.fingerprint, self.supplement.fingerprint)

    def clips(self, names: Sequence[str]) -> list[Clip]:
        """The clips of `names`, in that order."""
        by_name = {clip.name: clip for clip in self.corpus.clips}
        return [by_name[name] for name in names]

    def seconds(self, names: Sequence[str]) -> list[float]:
        """Lengths of the clips of `names`."""
        return [clip.seconds for clip in self.clips(names)]

    def context_rule(self, whisper: Whisper, config: TrainConfig) -> ContextRule:
        """How much of each clip the encoder gets, in training and scoring alike, for every configuration of a study."""
        return context_rule(config, whisper.seconds, max(clip.seconds for clip in self.corpus.clips))

    def mels(self, names: Sequence[str], whisper: Whisper, config: TrainConfig) -> LogMels:
        """The log-mels of `names` by the checkpoint's own feature extractor, from the cache where it has them."""
        return log_mel.log_mels(self.corpus, names, whisper.extractor, config.normalization, self.cache)

    def kept_mels(self, names: Sequence[str], whisper: Whisper, config: TrainConfig, device: torch.device) -> LogMels:
        """The same on `device`, kept there for the next evaluation: the newest few sets of clips."""
        key = (log_mel.cache_key(self.corpus, names, whisper.extractor, config.normalization), device)
        mels = self.kept.pop(key, None)
        if mels is None:
            mels = self.mels(names, whisper, config).to(device)
        self.kept[key] = mels  # behind the others
        while len(self.kept) > _KEPT:
            del self.kept[next(iter(self.kept))]
        return mels

    def label_ids(self, names: Sequence[str], whisper: Whisper) -> dict[str, list[int]]:
        """Label ids by clip name; raises InputError for texts longer than the decoder has positions."""
        labels = {}
        for clip in self.clips(names):
            labels[clip.name] = tokens.label_ids(whisper, clip.text, self.language, self.task)
        limit = int(whisper.model.config.max_target_positions)
        too_long = [name for name in names if len(labels[name]) > limit]
        _refuse(too_long, f"text longer than {limit} tokens", "shorten or drop")
        return labels

    def check_lengths(self, names: Sequence[str], seconds: float) -> None:
        """Raises InputError for clips longer than `seconds`: the encoder would not get the end of their text."""
        # The last frame may be a fraction of 10 ms over.
        too_long = [clip.name for clip in self.clips(names) if clip.seconds > seconds + 0.01]
        _refuse(too_long, f"longer than the {seconds:g} s that the encoder takes", "raise context_seconds or drop")


def _refuse(names: Sequence[str], fault: str, remedy: str) -> None:
    """Raises InputError where `names`, the clips that have the fault, is not empty."""
    if not names:
        return
    shown = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        shown += f" and {len(names) - _NAMED} more"
    pronoun = "it" if len(names) == 1 else "them"
    raise InputError(f"{shown}: {fault}; {remedy} {pronoun}")
