"""The clips of every update, in seeded order: their log-mels, decoder inputs and labels.

Dimension words in shape comments: clips, frames (mel, 10 ms), tokens (decoder inputs, the longest clip's), labels
(of all clips, without padding).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel, training_clips
from tmsearch.features.dataset import Speech
from tmsearch.features.training_clips import Example, TrainingClips
from tmsearch.model.context import FRAMES_PER_POSITION, ContextRule, dealt
from tmsearch.model.forward import GroupPlaces, MicroBatch
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper

_EXTRA_STREAM = 6  # of random numbers; training_clips.py and those that it uses have the first five
_ROUNDING = 1e-9  # examples: a share times their number may be that much below a whole one
COMPILED_STEP = 64  # tokens; decoder inputs of windows are multiples of it where graphs are compiled


def clip_order(count: int, seed: int, first: int, size: int, stream: Sequence[int] = ()) -> list[int]:
    """Items `first` to `first + size` of an endless sequence of seeded permutations of `count` clips, one an epoch.

    `stream` tells sequences of one seed apart.
    """
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        permutation = np.random.default_rng([seed, *stream, epoch]).permutation(count)
        chosen += [int(index) for index in permutation[offset : offset + size - len(chosen)]]
    return chosen


def pad_labels(
    rows: Sequence[Sequence[int]],
    start: int,
    filler: int,
    min_tokens: int = 0,
    before: Sequence[Sequence[int]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels of clips with differing numbers of label ids.

    Padding is known by length and not by id: `filler` may be a token of a text, as pad and end are one token in
    English-only checkpoints, and the end must be learned.

    Args:
        rows: Label ids of each clip.
        start: Id that stands before a clip's labels in its decoder inputs.
        filler: Id that fills the decoder inputs of shorter clips.
        min_tokens: Length of the decoder inputs where no clip has more of them.
        before: Ids in front of each clip's start, which are not learnt; None: nothing.

    Returns:
        Decoder inputs [clips, tokens], indices [labels] of those (flattened) that have a label, and labels [labels].
    """
    before = before or [()] * len(rows)
    tokens = max(min_tokens, *(len(front) + len(row) for front, row in zip(before, rows, strict=True)))
    decoder_inputs = torch.full((len(rows), tokens), filler)  # [clips, tokens]
    positions: list[int] = []
    labels: list[int] = []
    for index, (front, row) in enumerate(zip(before, rows, strict=True)):
        end = len(front) + len(row)
        decoder_inputs[index, :end] = torch.tensor([*front, start, *row[:-1]])
        positions += range(index * tokens + len(front), index * tokens + end)
        labels += row
    return decoder_inputs, torch.tensor(positions), torch.tensor(labels)


class Batches:
    """The training split as batches, with rows of extra speech where there is some.

    The batch of a step depends on the step and the seed alone.
    """

    def __init__(self, whisper: Whisper, speech: Speech, config: TrainConfig, device: torch.device) -> None:
        """Computes labels and log-mels, kept on `device`; raises InputError for clips that the model cannot take."""
        if not speech.split.train:
            raise InputError("the training split has no clips; lower data.validation and data.test")
        speech.supplement.check(config)
        self.config = config
        self.extractor = whisper.extractor
        self.clip_rule = speech.context_rule(whisper, config)
        self.start = special_id(whisper, "<|startoftranscript|>")
        self.filler = special_id(whisper, "<|endoftext|>")
        self.own = TrainingClips(whisper, speech, config, self.clip_rule, device, speech.supplement.noise)
        self.shares = speech.supplement.shares(config)
        self.extra: list[TrainingClips | None] = []
        for entry, share in zip(speech.supplement.extra, self.shares, strict=True):
            clips = training_clips.of_extra(whisper, speech, entry, config, self.clip_rule, device) if share else None
            self.extra.append(clips)
        # Where layers are compiled, graphs of few lengths; otherwise a batch is as long as its own longest label.
        self.is_compiled = devices.uses_compile(config, device)
        self.is_dealt = device.type == "cuda"
        self.min_tokens = 0
        if self.is_compiled:
            self.min_tokens = max(len(labels) for clips in self._sources() for labels in clips.labels.values())
        self.most_tokens = int(whisper.model.config.max_target_positions)

    def _sources(self) -> list[TrainingClips]:
        return [self.own, *(clips for clips in self.extra if clips is not None)]

    @property
    def context_rule(self) -> ContextRule:
        """The rule of the longest examples."""
        return max((clips.window_rule for clips in self._sources()), key=lambda rule: rule.max_positions)

    def longest_row(self) -> list[int]:
        """Label ids as many as an example has at most, for a probe of memory."""
        return [self.filler] * max(clips.most_tokens() for clips in self._sources())

    def rows(self, step: int) -> list[tuple[TrainingClips, str]]:
        """The clips of update `step`, from 1, and where they are from; a window begins with its clip."""
        size = self.config.batch_size
        own_first, own_last = (size * number for number in (step - 1, step))
        extra: list[tuple[TrainingClips, str]] = []
        for number, (clips, share) in enumerate(zip(self.extra, self.shares, strict=True)):
            if clips is None:
                continue
            first, last = (_drawn_by(share, size * count) for count in (step - 1, step))
            order = clip_order(len(clips.names), self.config.seed, first, last - first, (_EXTRA_STREAM, number))
            extra += [(clips, clips.names[index]) for index in order]
            own_first -= first
            own_last -= last
        order = clip_order(len(self.own.names), self.config.seed, own_first, own_last - own_first)
        return [*((self.own, self.own.names[index]) for index in order), *extra]

    def examples(self, step: int) -> list[Example]:
        """The batch of update `step`, from 1."""
        return [clips.example(name, step, index) for index, (clips, name) in enumerate(self.rows(step))]

    def micro_batches(self, step: int, size: int) -> Iterator[MicroBatch]:
        """The batch of update `step`, from 1, in parts of at most `size` clips."""
        batch = self.examples(step)
        batch_label_count = sum(len(example.labels) for example in batch)
        for part in self._parts(batch, size):
            mels, places, examples = self._mels([batch[index] for index in part], step)
            rows = [example.labels for example in examples]
            before = [example.before for example in examples]
            padded = pad_labels(rows, self.start, self.filler, self._least_tokens(examples), before)
            yield MicroBatch(mels, *padded, batch_label_count, places)

    def _parts(self, batch: Sequence[Example], size: int) -> list[list[int]]:
        """Which examples of a batch go through the model together, at most `size`.

        On a GPU, which takes clips of any lengths at once, parts take about as much memory each.
        """
        if self.is_dealt:
            return dealt([example.encoded_positions for example in batch], size)
        return [list(range(first, min(first + size, len(batch)))) for first in range(0, len(batch), size)]

    def _least_tokens(self, examples: Sequence[Example]) -> int:
        """Tokens that the decoder gets at least: of few lengths, where each compiles a graph of its own."""
        longest = max(len(example.before) + len(example.labels) for example in examples)
        if not self.is_compiled or longest <= self.min_tokens:
            return self.min_tokens
        return min(math.ceil(longest / COMPILED_STEP) * COMPILED_STEP, self.most_tokens)

    def _mels(
        self, examples: Sequence[Example], step: int
    ) -> tuple[tuple[torch.Tensor, ...], tuple[GroupPlaces, ...], list[Example]]:
        """Augmented log-mels and places, in groups of equal length, shortest first, and the examples in their order."""
        by_length: dict[tuple[int, bool], list[Example]] = {}
        for example in examples:
            by_length.setdefault((example.encoded_positions, example.places is None), []).append(example)
        groups = []
        places: list[GroupPlaces] = []
        order: list[Example] = []
        for length in sorted(by_length):
            members = by_length[length]
            mels = self._group(members, FRAMES_PER_POSITION * max(example.positions for example in members))
            lengths = [round(example.own_seconds * augment.FRAMES_PER_SECOND) for example in members]
            in_batch = [example.index for example in members]
            groups.append(augment.log_mels(mels, lengths, self.config, step, in_batch))
            thinned = [example.places for example in members if example.places is not None]
            places.append(tuple(thinned) or None)
            order += members
        return tuple(groups), tuple(places), order

    def _group(self, examples: Sequence[Example], frames: int) -> torch.Tensor:
        """Log-mels of examples that are heard for `frames`, [clips, n_mels, frames]."""
        rows = []
        for example in examples:
            if example.samples is None:
                rows.append(example.mels.batch([example.name], frames))
            else:
                mel = log_mel.from_samples([example.samples], self.extractor, frames)
                rows.append(mel.to(example.mels.device))
        return torch.cat(rows)


def _drawn_by(share: float, examples: int) -> int:
    """How many of the first `examples` are of a set with this share of them."""
    return math.floor(share * examples + _ROUNDING)
