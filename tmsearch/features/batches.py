"""The clips of every update, in seeded order: their log-mels, decoder inputs and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel
from tmsearch.features.dataset import Speech
from tmsearch.model.context import ContextRule
from tmsearch.model.forward import MicroBatch
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper


def order(count: int, seed: int, first: int, size: int) -> list[int]:
    """Items `first` to `first + size` of an endless row of seeded permutations of `count` clips, one an epoch."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        permutation = np.random.default_rng([seed, epoch]).permutation(count)
        chosen += [int(index) for index in permutation[offset : offset + size - len(chosen)]]
    return chosen


def padded(
    rows: Sequence[Sequence[int]], start: int, filler: int, places: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decoder inputs [rows, longest row or `places`], which of their places (flat) have a label, and those labels.

    Inputs are the labels behind `start`. Padding is known by length: `filler` may well be a token, as pad and end
    are one in English-only checkpoints, and the end must be learnt.
    """
    longest = max(places, *(len(row) for row in rows))
    inputs = torch.full((len(rows), longest), filler)
    for index, row in enumerate(rows):
        inputs[index, : len(row)] = torch.tensor([start, *row[:-1]])
    kept = [index * longest + place for index, row in enumerate(rows) for place in range(len(row))]
    return inputs, torch.tensor(kept), torch.tensor([label for row in rows for label in row])


class Batches:
    """The training split as batches; the batch of a step depends on the step and the seed alone."""

    def __init__(self, whisper: Whisper, speech: Speech, config: TrainConfig, place: torch.device) -> None:
        """Makes labels and log-mels, kept on `place`; raises InputError for clips that the model can't take."""
        self.names = list(speech.split.train)
        if not self.names:
            raise InputError("the training split has no clips; lower data.validation and data.test")
        self.config, self.speech, self.extractor = config, speech, whisper.extractor
        self.context_rule: ContextRule = speech.context_rule(whisper, config)
        self.start = special_id(whisper, "<|startoftranscript|>")
        self.filler = special_id(whisper, "<|endoftext|>")
        speech.check_lengths(self.names, self.context_rule.seconds)
        self.labels = speech.label_ids(self.names, whisper)
        # A compiled graph has one length; elsewhere a batch is as long as its own longest label.
        self.places = max(map(len, self.labels.values())) if config.compile else 0
        self.mels = speech.mels(self.names, whisper, config).on(place)
        self.seconds = dict(zip(self.names, speech.seconds(self.names), strict=True))

    def clip_names(self, step: int) -> list[str]:
        """The clips of update `step`, from 1."""
        size = self.config.batch_size
        return [self.names[index] for index in order(len(self.names), self.config.seed, (step - 1) * size, size)]

    def micro_batches(self, step: int, micro_batch: int) -> Iterator[MicroBatch]:
        """The batch of update `step`, from 1, in parts of at most `micro_batch` clips."""
        names = self.clip_names(step)
        tokens = sum(len(self.labels[name]) for name in names)
        for first in range(0, len(names), micro_batch):
            part = names[first : first + micro_batch]
            runs, places = self._mels(part, step, first)
            rows = [self.labels[part[place]] for place in places]
            yield MicroBatch(runs, *padded(rows, self.start, self.filler, self.places), tokens)

    def _mels(self, names: list[str], step: int, first_place: int) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """Augmented log-mels of clips that stand in the batch from `first_place` on, in runs; the clips' new order."""
        changed = self._changed_waveforms(names, step, first_place)
        seconds = [
            len(changed[place]) / augment.SAMPLE_RATE if place in changed else self.seconds[name]
            for place, name in enumerate(names)
        ]
        runs, order_in_batch = [], []
        for frames, places in self.context_rule.length_groups(seconds):
            mels = self.mels.batch([names[place] for place in places], frames)
            made = [index for index, place in enumerate(places) if place in changed]
            if made:
                waves = [changed[places[index]] for index in made]
                mels[made] = log_mel.from_samples(waves, self.extractor, frames).to(mels.device)
            lengths = [round(seconds[place] * augment.FRAMES_PER_SECOND) for place in places]
            runs.append(augment.log_mels(mels, lengths, self.config, step, [first_place + place for place in places]))
            order_in_batch += places
        return tuple(runs), order_in_batch

    def _changed_waveforms(self, names: list[str], step: int, first_place: int) -> dict[int, augment.Samples]:
        """The waveforms that an augmentation changes, by the clip's place in `names`."""
        if not augment.changes_waveform(self.config):
            return {}
        changed: dict[int, augment.Samples] = {}
        for place, name in enumerate(names):
            samples = self.speech.corpus.samples(name)
            heard = augment.waveform(samples, self.config, step, first_place + place, self.context_rule.seconds)
            if heard is not None:
                # Normalised after the change, as a microphone's signal is.
                changed[place] = log_mel.normalize(heard, self.config.normalization)
        return changed
