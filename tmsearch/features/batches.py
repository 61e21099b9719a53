"""The clips of every update, in seeded order: their log-mels, decoder inputs and labels.

Dimension words in shape comments: clips, frames (mel, 10 ms), tokens (decoder inputs, the longest clip's), labels
(of all clips, without padding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel
from tmsearch.features.dataset import Speech
from tmsearch.model.forward import MicroBatch
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper


def clip_order(count: int, seed: int, first: int, size: int) -> list[int]:
    """Items `first` to `first + size` of an endless sequence of seeded permutations of `count` clips, one an epoch."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
        chosen += [int(index) for index in permutation[offset : offset + size - len(chosen)]]
    return chosen


def pad_labels(
    rows: Sequence[Sequence[int]], start: int, filler: int, min_tokens: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decoder inputs and labels of clips with differing numbers of label ids.

    Padding is known by length and not by id: `filler` may be a token of a text, as pad and end are one token in
    English-only checkpoints, and the end must be learned.

    Args:
        rows: Label ids of each clip.
        start: Id that stands before a clip's labels in its decoder inputs.
        filler: Id that fills the decoder inputs of shorter clips.
        min_tokens: Length of the decoder inputs where no clip has more labels.

    Returns:
        Decoder inputs [clips, tokens], indices [labels] of those (flattened) that have a label, and labels [labels].
    """
    tokens = max(min_tokens, *(len(row) for row in rows))
    decoder_inputs = torch.full((len(rows), tokens), filler)  # [clips, tokens]
    positions: list[int] = []
    labels: list[int] = []
    for index, row in enumerate(rows):
        decoder_inputs[index, : len(row)] = torch.tensor([start, *row[:-1]])
        positions += range(index * tokens, index * tokens + len(row))
        labels += row
    return decoder_inputs, torch.tensor(positions), torch.tensor(labels)


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
        self.context_rule = speech.context_rule(whisper, config)
        self.start = special_id(whisper, "<|startoftranscript|>")
        self.filler = special_id(whisper, "<|endoftext|>")
        speech.check_lengths(self.names, self.context_rule.seconds)
        self.labels = speech.label_ids(self.names, whisper)
        # Where compiling is asked for, graphs of one length; otherwise a batch is as long as its own longest label.
        self.min_tokens = max(map(len, self.labels.values())) if config.compile is True else 0
        self.mels = speech.mels(self.names, whisper, config).to(device)
        self.seconds = dict(zip(self.names, speech.seconds(self.names), strict=True))

    def clip_names(self, step: int) -> list[str]:
        """The clips of update `step`, from 1."""
        size = self.config.batch_size
        order = clip_order(len(self.names), self.config.seed, (step - 1) * size, size)
        return [self.names[index] for index in order]

    def micro_batches(self, step: int, size: int) -> Iterator[MicroBatch]:
        """The batch of update `step`, from 1, in parts of at most `size` clips."""
        names = self.clip_names(step)
        batch_label_count = sum(len(self.labels[name]) for name in names)
        for first in range(0, len(names), size):
            part = names[first : first + size]
            mels, order = self._mels(part, step, first)
            rows = [self.labels[part[index]] for index in order]
            padded = pad_labels(rows, self.start, self.filler, self.min_tokens)
            yield MicroBatch(mels, *padded, batch_label_count)

    def _mels(self, names: list[str], step: int, first: int) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """Augmented log-mels, in groups of equal length, and the clips' order in them as indices into `names`.

        `first` is the index of names[0] in the batch of update `step`.
        """
        changed = self._changed_waveforms(names, step, first)
        seconds = [self.seconds[name] for name in names]
        for index, samples in changed.items():
            seconds[index] = len(samples) / SAMPLE_RATE
        groups = []
        order: list[int] = []
        for frames, indices in self.context_rule.length_groups(seconds):
            mels = self.mels.batch([names[index] for index in indices], frames)  # [clips, n_mels, frames]
            rows = [row for row, index in enumerate(indices) if index in changed]
            if rows:
                waveforms = [changed[indices[row]] for row in rows]
                mels[rows] = log_mel.from_samples(waveforms, self.extractor, frames).to(mels.device)
            lengths = [round(seconds[index] * augment.FRAMES_PER_SECOND) for index in indices]
            in_batch = [first + index for index in indices]
            groups.append(augment.log_mels(mels, lengths, self.config, step, in_batch))
            order += indices
        return tuple(groups), order

    def _changed_waveforms(self, names: list[str], step: int, first: int) -> dict[int, Samples]:
        """The waveforms that an augmentation changes, by index into `names`."""
        if not augment.changes_waveform(self.config):
            return {}
        changed: dict[int, Samples] = {}
        for index, name in enumerate(names):
            samples = self.speech.corpus.samples(name)
            augmented = augment.waveform(samples, self.config, step, first + index, self.context_rule.seconds)
            if augmented is not None:
                # Normalized after the change, as a microphone's signal is.
                changed[index] = log_mel.normalize(augmented, self.config.normalization)
        return changed
