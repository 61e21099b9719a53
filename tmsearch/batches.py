"""The clips of every update, in seeded order: their log-mels, decoder inputs and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tmsearch import audio, augment
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.labels import special_id
from tmsearch.loss import IGNORED
from tmsearch.model import Whisper
from tmsearch.speech import Speech


@dataclass(frozen=True)
class MicroBatch:
    """Clips of one forward pass."""

    mels: torch.Tensor  # [clips, n_mels, frames] float32
    inputs: torch.Tensor  # [clips, places] decoder input ids
    labels: torch.Tensor  # [clips, places], IGNORED where padded
    tokens: int  # labels in the whole batch that this is a part of


def order(count: int, seed: int, first: int, size: int) -> list[int]:
    """Items `first` to `first + size` of an endless row of seeded permutations of `count` clips, one an epoch."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
        chosen += [int(index) for index in permutation[offset : offset + size - len(chosen)]]
    return chosen


def padded(rows: Sequence[Sequence[int]], start: int, filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels [rows, longest] of label ids.

    Inputs are the labels behind `start`. Padding is known by length: `filler` may well be a token, as pad and end
    are one in English-only checkpoints, and the end must be learnt.
    """
    longest = max(len(row) for row in rows)
    inputs = torch.full((len(rows), longest), filler)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        labels[index, : len(row)] = torch.tensor(row)
        inputs[index, : len(row)] = torch.tensor([start, *row[:-1]])
    return inputs, labels


class Batches:
    """The training split as batches; the batch of a step depends on the step and the seed alone."""

    def __init__(self, whisper: Whisper, speech: Speech, config: TrainConfig) -> None:
        """Makes labels and log-mels; raises InputError for an empty split and for clips that the model can't take."""
        self.names = list(speech.split.train)
        if not self.names:
            raise InputError("the training split has no clips; lower data.validation and data.test")
        self.config, self.speech, self.extractor = config, speech, whisper.extractor
        self.frames, self.context_seconds = whisper.frames, whisper.context_seconds
        self.start = special_id(whisper, "<|startoftranscript|>")
        self.filler = special_id(whisper, "<|endoftext|>")
        speech.check_heard(self.names, self.context_seconds)
        self.labels = speech.label_ids(self.names, whisper)
        self.mels = speech.mels(self.names, whisper, config)
        self.seconds = {clip.name: clip.seconds for clip in speech.clips(self.names)}

    def names_of(self, step: int) -> list[str]:
        """The clips of update `step`, from 1."""
        size = self.config.batch_size
        return [self.names[index] for index in order(len(self.names), self.config.seed, (step - 1) * size, size)]

    def of(self, step: int, micro_batch: int) -> Iterator[MicroBatch]:
        """The batch of update `step`, from 1, in parts of at most `micro_batch` clips."""
        names = self.names_of(step)
        tokens = sum(len(self.labels[name]) for name in names)
        for first in range(0, len(names), micro_batch):
            part = names[first : first + micro_batch]
            inputs, labels = padded([self.labels[name] for name in part], self.start, self.filler)
            yield MicroBatch(self._mels(part, step, first), inputs, labels, tokens)

    def _mels(self, names: list[str], step: int, first_place: int) -> torch.Tensor:
        """Augmented log-mels [clips, n_mels, frames] of clips that stand in the batch from `first_place` on."""
        mels = self.mels.batch(names, self.frames)
        lengths = [round(self.seconds[name] * augment.FRAMES_PER_SECOND) for name in names]
        if augment.changes_waveform(self.config):
            mels = mels.clone()
            self._change_waveforms(mels, lengths, names, step, first_place)
        return augment.log_mels(mels, lengths, self.config, step, first_place)

    def _change_waveforms(
        self, mels: torch.Tensor, lengths: list[int], names: list[str], step: int, first_place: int
    ) -> None:
        """Puts the log-mels of changed waveforms in the place of the cached ones."""
        changed: dict[int, augment.Samples] = {}
        for index, name in enumerate(names):
            samples = self.speech.corpus.samples(name)
            heard = augment.waveform(samples, self.config, step, first_place + index, self.context_seconds)
            if heard is not None:
                # Normalised after the change, as a microphone's signal is.
                changed[index] = audio.normalise(heard, self.config.normalisation)
                lengths[index] = len(heard) * augment.FRAMES_PER_SECOND // augment.SAMPLE_RATE
        if changed:
            mels[list(changed)] = audio.from_samples(list(changed.values()), self.extractor, self.frames)
