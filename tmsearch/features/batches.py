"""The clips of every update, in seeded order: their log-mels, decoder inputs and labels.

Dimension words in shape comments: clips, frames (mel, 10 ms), tokens (decoder inputs, the longest clip's), labels
(of all clips, without padding).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel
from tmsearch.features.dataset import Speech
from tmsearch.features.windows import Windows
from tmsearch.model import context
from tmsearch.model.context import FRAMES_PER_POSITION, ContextRule, Places
from tmsearch.model.forward import GroupPlaces, MicroBatch
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper

COMPILED_STEP = 64  # tokens; decoder inputs of windows are multiples of it where graphs are compiled


def clip_order(count: int, seed: int, first: int, size: int) -> list[int]:
    """Items `first` to `first + size` of an endless sequence of seeded permutations of `count` clips, one an epoch."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
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


@dataclass(frozen=True)
class Example:
    """A clip or a window of a batch. `samples` is None for a clip as it is, whose log-mel is cached."""

    name: str  # of the clip, a window's first
    index: int  # in the batch
    positions: int  # of the encoder
    own_seconds: float  # of the clip, in a window of its first: what SpecAugment's masks are in
    labels: Sequence[int]
    before: Sequence[int] = ()
    samples: Samples | None = None  # [samples], normalized
    places: Places | None = None  # that are encoded of a clip whose quiet is thinned

    @property
    def encoded_positions(self) -> int:
        """Positions that are encoded, without the silence behind those of `positions`."""
        return self.positions if self.places is None else len(self.places)


class Batches:
    """The training split as batches; the batch of a step depends on the step and the seed alone."""

    def __init__(self, whisper: Whisper, speech: Speech, config: TrainConfig, device: torch.device) -> None:
        """Computes labels and log-mels, kept on `device`; raises InputError for clips that the model cannot take."""
        self.names = list(speech.split.train)
        if not self.names:
            raise InputError("the training split has no clips; lower data.validation and data.test")
        self.config = config
        self.speech = speech
        self.extractor = whisper.extractor
        self.clip_rule = speech.context_rule(whisper, config)
        self.start = special_id(whisper, "<|startoftranscript|>")
        self.filler = special_id(whisper, "<|endoftext|>")
        speech.check_lengths(self.names, self.clip_rule.seconds)
        self.labels = speech.label_ids(self.names, whisper)
        # Where layers are compiled, graphs of few lengths; otherwise a batch is as long as its own longest label.
        self.is_compiled = devices.uses_compile(config, device)
        self.min_tokens = max(map(len, self.labels.values())) if self.is_compiled else 0
        self.most_tokens = int(whisper.model.config.max_target_positions)
        self.mels = speech.mels(self.names, whisper, config).to(device)
        self.seconds = dict(zip(self.names, speech.seconds(self.names), strict=True))
        self.windows = None
        if config.window_share or config.clip_times:
            self.windows = Windows(whisper, speech, self.names, config)
        self.window_rule = self.clip_rule
        if self.windows is not None and config.window_share:
            self.window_rule = context.for_windows(self.clip_rule, self.windows.seconds)

    @property
    def context_rule(self) -> ContextRule:
        """The rule of the longest examples."""
        return self.window_rule

    def longest_row(self) -> list[int]:
        """Label ids as many as an example has at most, for a probe of memory."""
        longest = max(self.labels.values(), key=len)
        if self.windows is None or not self.config.window_share:
            return longest
        return [self.filler] * max(len(longest), self.windows.most_tokens())

    def clip_names(self, step: int) -> list[str]:
        """The clips of update `step`, from 1; a window begins with its clip."""
        size = self.config.batch_size
        order = clip_order(len(self.names), self.config.seed, (step - 1) * size, size)
        return [self.names[index] for index in order]

    def examples(self, step: int) -> list[Example]:
        """The batch of update `step`, from 1."""
        return [self._example(name, step, index) for index, name in enumerate(self.clip_names(step))]

    def micro_batches(self, step: int, size: int) -> Iterator[MicroBatch]:
        """The batch of update `step`, from 1, in parts of at most `size` clips."""
        batch = self.examples(step)
        batch_label_count = sum(len(example.labels) for example in batch)
        for first in range(0, len(batch), size):
            mels, places, examples = self._mels(batch[first : first + size], step)
            rows = [example.labels for example in examples]
            before = [example.before for example in examples]
            padded = pad_labels(rows, self.start, self.filler, self._least_tokens(examples), before)
            yield MicroBatch(mels, *padded, batch_label_count, places)

    def _least_tokens(self, examples: Sequence[Example]) -> int:
        """Tokens that the decoder gets at least: of few lengths, where each compiles a graph of its own."""
        longest = max(len(example.before) + len(example.labels) for example in examples)
        if not self.is_compiled or longest <= self.min_tokens:
            return self.min_tokens
        return min(math.ceil(longest / COMPILED_STEP) * COMPILED_STEP, self.most_tokens)

    def _example(self, name: str, step: int, index: int) -> Example:
        """The example number `index` of update `step`, of clip `name`."""
        seconds = self.seconds[name]
        window = self.windows.draw(name, step, index) if self.windows else None
        if window is not None:
            positions = self.window_rule.positions(len(window.samples) / SAMPLE_RATE)
            return Example(name, index, positions, seconds, window.labels, window.before, window.samples)
        samples = self._changed_waveform(name, step, index)
        if samples is not None:
            seconds = len(samples) / SAMPLE_RATE
        timed = self.windows.timed_clip(name, step, index, seconds) if self.windows else None
        labels = timed or self.labels[name]
        positions = self.clip_rule.positions(seconds)
        places = None
        if self.clip_rule.quiet and samples is None:
            places = self.clip_rule.places(positions, *self.mels.quiet_edges(name))
        return Example(name, index, positions, seconds, labels, samples=samples, places=places)

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
        mels = self.mels.batch([example.name for example in examples], frames)
        rows = []
        waveforms = []
        for row, example in enumerate(examples):
            if example.samples is not None:
                rows.append(row)
                waveforms.append(example.samples)
        if rows:
            mels[rows] = log_mel.from_samples(waveforms, self.extractor, frames).to(mels.device)
        return mels

    def _changed_waveform(self, name: str, step: int, index: int) -> Samples | None:
        """The waveform of a clip where an augmentation changes it."""
        if not augment.changes_waveform(self.config):
            return None
        samples = self.speech.corpus.samples(name)
        augmented = augment.waveform(samples, self.config, step, index, self.clip_rule.seconds)
        # Normalized after the change, as a microphone's signal is.
        return None if augmented is None else log_mel.normalize(augmented, self.config.normalization)
