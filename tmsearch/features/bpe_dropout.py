"""Token ids of texts with some merges skipped at random (BPE dropout, Provilkov et al. 2020).

The tokenizers library has BPE dropout, but draws it from a generator that nobody can seed, so that no training could be
repeated or resumed to the bit. Here the same merges are made by a seeded generator: with a probability of 0 the ids are
the library's own, with another their distribution is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tmsearch.config import TrainConfig
from tmsearch.data.corpus import Clip
from tmsearch.errors import InputError
from tmsearch.model.tokens import text_ids
from tmsearch.model.whisper import Whisper

_STREAM = 5  # of random numbers; augment.py, windows.py and training_clips.py have the first four
_SAMPLE = 50  # texts that `growth` draws


class TextIds:
    """The ids of clips' texts: as the tokenizer has them, or drawn from the seed, the step and the place alone."""

    def __init__(self, whisper: Whisper, clips: Sequence[Clip], config: TrainConfig) -> None:
        """Raises InputError where merges are to be skipped and the tokenizer makes none."""
        self.plain = {clip.name: text_ids(whisper, clip.text) for clip in clips}
        self._texts = {clip.name: clip.text for clip in clips}
        self._probability = config.bpe_dropout
        self._seed = config.seed
        self._merges = Merges(whisper) if config.bpe_dropout else None

    def drawn(self, name: str, step: int, index: int, place: int = 0, most: int | None = None) -> list[int]:
        """The ids of one example's text.

        Args:
            name: The clip.
            step: The update, from 1.
            index: The example's index in the batch of that update.
            place: The clip's place in its window.
            most: How many there may be; where more are drawn, the text has its plain ids.
        """
        if self._merges is None:
            return self.plain[name]
        rng = np.random.default_rng([self._seed, _STREAM, step, index, place])
        ids = self._merges.ids(self._texts[name], self._probability, rng)
        return self.plain[name] if most is not None and len(ids) > most else ids

    def most(self, name: str) -> int:
        """The most ids that the clip's text may have: a byte each, where merges are skipped."""
        if self._merges is None:
            return len(self.plain[name])
        return len(" ".join(self._texts[name].split()).encode()) + 1


class Merges:
    """The merges of a checkpoint's tokenizer, by rank."""

    def __init__(self, whisper: Whisper) -> None:
        backend = whisper.tokenizer.backend_tokenizer
        model = json.loads(backend.to_str())["model"]
        if model.get("type") != "BPE" or not model["merges"]:
            raise InputError(f"bpe_dropout: {whisper.name}: its tokenizer has no merges to be skipped; give 0")
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._vocabulary: dict[str, int] = model["vocab"]
        self._normalizer = backend.normalizer
        self._words = backend.pre_tokenizer

    def ids(self, text: str, probability: float, rng: np.random.Generator) -> list[int]:
        """The ids of `text` as `tokens.text_ids` has them, each possible merge skipped with `probability`."""
        words = " ".join(text.split())
        if not words:
            return []
        sentence = f" {words}"
        if self._normalizer is not None:
            sentence = self._normalizer.normalize_str(sentence)
        ids = []
        for word, _ in self._words.pre_tokenize_str(sentence):
            ids += [self._vocabulary[token] for token in self._merged(word, probability, rng)]
        return ids

    def _merged(self, word: str, probability: float, rng: np.random.Generator) -> list[str]:
        """The tokens of a word: the first merge by rank that is not skipped is made, until none is left.

        What was skipped may be made at the next step, as in the library.
        """
        tokens = list(word)
        while len(tokens) > 1:
            possible = []
            for place, pair in enumerate(pairwise(tokens)):
                if pair in self._ranks:
                    possible.append((self._ranks[pair], place))
            made = [merge for merge in possible if not probability or rng.random() >= probability]
            if not made:
                break
            _, place = min(made)
            tokens[place : place + 2] = ["".join(tokens[place : place + 2])]
        return tokens


def growth(whisper: Whisper, clips: Sequence[Clip], config: TrainConfig) -> float:
    """How many times as many ids the texts have with merges skipped: of some of them, drawn once."""
    if not config.bpe_dropout:
        return 1.0
    sample = clips[:: max(1, len(clips) // _SAMPLE)]
    texts = TextIds(whisper, sample, config)
    plain = sum(len(texts.plain[clip.name]) for clip in sample)
    return sum(len(texts.drawn(clip.name, 1, 0)) for clip in sample) / max(1, plain)
