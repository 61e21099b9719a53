"""Clips of one dataset that are trained on: labels, log-mels, windows and noise, an example at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.data.augmentation.extra_data import ExtraCorpus
from tmsearch.data.augmentation.noise import Noise
from tmsearch.data.splits import Split
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel
from tmsearch.features.bpe_dropout import TextIds
from tmsearch.features.dataset import Speech
from tmsearch.features.log_mel import LogMels
from tmsearch.features.windows import Windows
from tmsearch.model import context
from tmsearch.model.context import ContextRule, Places
from tmsearch.model.tokens import prompt_ids, special_id, text_ids
from tmsearch.model.whisper import Whisper

_NOISE_STREAM = 4  # of random numbers; augment.py and windows.py have the first three


@dataclass(frozen=True)
class Example:
    """A clip or a window of a batch. `samples` is None for a clip as it is, whose log-mel is cached in `mels`."""

    name: str  # of the clip, a window's first
    index: int  # in the batch
    positions: int  # of the encoder
    own_seconds: float  # of the clip, in a window of its first: what SpecAugment's masks are in
    labels: Sequence[int]
    mels: LogMels = field(compare=False, repr=False)
    before: Sequence[int] = ()
    samples: Samples | None = None  # [samples], normalized
    places: Places | None = None  # that are encoded of a clip whose quiet is thinned

    @property
    def encoded_positions(self) -> int:
        """Positions that are encoded, without the silence behind those of `positions`."""
        return self.positions if self.places is None else len(self.places)


class TrainingClips:
    """The clips `speech.split.train`; an example depends on its clip, the step and its index in the batch alone."""

    def __init__(
        self,
        whisper: Whisper,
        speech: Speech,
        config: TrainConfig,
        clip_rule: ContextRule,
        device: torch.device,
        noise: Noise | None = None,
    ) -> None:
        """Computes labels and log-mels, kept on `device`; raises InputError for clips that the model cannot take.

        Args:
            whisper: What is trained.
            speech: The clips.
            config: The knobs.
            clip_rule: How much of a single clip is heard.
            device: Where the log-mels are.
            noise: What may be mixed under them.
        """
        self.names = list(speech.split.train)
        self.clip_rule = clip_rule
        self._config = config
        self._corpus = speech.corpus
        self._noise = noise if config.noise_db is not None and config.noise_share else None
        self._prompt = prompt_ids(whisper, speech.language, speech.task)[1:]
        self._end = special_id(whisper, "<|endoftext|>")
        self._most_tokens = int(whisper.model.config.max_target_positions)
        speech.check_lengths(self.names, clip_rule.seconds)
        self.labels = speech.label_ids(self.names, whisper)
        self._texts = None
        if config.bpe_dropout or config.window_share or config.clip_times:
            self._texts = TextIds(whisper, speech.clips(self.names), config)
        self.mels = speech.mels(self.names, whisper, config).to(device)
        self.seconds = dict(zip(self.names, speech.seconds(self.names), strict=True))
        self.windows = None
        if config.window_share or config.clip_times:
            self.windows = Windows(whisper, speech, self.names, config, self._texts)
        self.window_rule = clip_rule
        if self.windows is not None and config.window_share:
            self.window_rule = context.for_windows(clip_rule, self.windows.seconds)

    def most_tokens(self) -> int:
        """As many labels as an example has at most."""
        longest = max(map(len, self.labels.values()))
        if self._texts is not None and self._config.bpe_dropout:
            longest_text = max(self._texts.most(name) for name in self.names)
            longest = min(self._most_tokens, len(self._prompt) + longest_text + 1)
        if self.windows is None or not self._config.window_share:
            return longest
        return max(longest, self.windows.most_tokens())

    def example(self, name: str, step: int, index: int) -> Example:
        """The example number `index` of update `step`, from 1, of clip `name`."""
        seconds = self.seconds[name]
        window = self.windows.draw(name, step, index) if self.windows else None
        if window is not None:
            samples = self._with_noise(window.samples, step, index)
            positions = self.window_rule.positions(len(samples) / SAMPLE_RATE)
            return Example(name, index, positions, seconds, window.labels, self.mels, window.before, samples)
        changed = self._changed_waveform(name, step, index)
        if changed is not None:
            seconds = len(changed) / SAMPLE_RATE
        timed = self.windows.timed_clip(name, step, index, seconds) if self.windows else None
        labels = timed or self._clip_labels(name, step, index)
        positions = self.clip_rule.positions(seconds)
        places = None
        if self.clip_rule.quiet and changed is None:
            places = self.clip_rule.places(positions, *self.mels.quiet_edges(name))
        return Example(name, index, positions, seconds, labels, self.mels, samples=changed, places=places)

    def _clip_labels(self, name: str, step: int, index: int) -> list[int]:
        if self._texts is None or not self._config.bpe_dropout:
            return self.labels[name]
        most = self._most_tokens - len(self._prompt) - 1
        return [*self._prompt, *self._texts.drawn(name, step, index, most=most), self._end]

    def _changed_waveform(self, name: str, step: int, index: int) -> Samples | None:
        """The waveform of a clip where an augmentation changes it."""
        if self._noise is None and not augment.changes_waveform(self._config):
            return None
        samples = self._corpus.samples(name)
        augmented = augment.waveform(samples, self._config, step, index, self.clip_rule.seconds)
        if augmented is not None:
            samples = augmented
        mixed = self._with_noise(samples, step, index)
        # Normalized after the change, as a microphone's signal is.
        return None if mixed is self._corpus.samples(name) else log_mel.normalize(mixed, self._config.normalization)

    def _with_noise(self, samples: Samples, step: int, index: int) -> Samples:
        """`samples` over noise, or themselves where the example has none."""
        if self._noise is None or self._config.noise_db is None:
            return samples
        rng = np.random.default_rng([self._config.seed, _NOISE_STREAM, step, index])
        if rng.random() >= self._config.noise_share:
            return samples
        return self._noise.mixed(samples, self._config.noise_db, rng)


def of_extra(
    whisper: Whisper, speech: Speech, entry: ExtraCorpus, config: TrainConfig, rule: ContextRule, device: torch.device
) -> TrainingClips:
    """The clips of an entry of `data.extra`, as far as the model takes them; arguments as TrainingClips has them.

    `rule` is that of the study's own clips, which need not be as long.
    """
    beside = extra_speech(whisper, speech, entry, config)
    longest = context.for_windows(rule, max(beside.seconds(beside.split.train)))
    return TrainingClips(whisper, beside, config, longest, device, speech.supplement.noise)


def extra_speech(whisper: Whisper, speech: Speech, entry: ExtraCorpus, config: TrainConfig) -> Speech:
    """An entry of `data.extra` beside the study's own `speech`: the clips that encoder and decoder take whole.

    Raises:
        InputError: They take none of them.
    """
    beside = Speech(entry.corpus, Split(entry.names, (), ()), speech.language, speech.task, speech.cache)
    most_seconds = min(config.context_seconds or whisper.seconds, whisper.seconds)
    most_tokens = int(whisper.model.config.max_target_positions)
    beside_text = len(prompt_ids(whisper, speech.language, speech.task))  # without the start, with the end
    names = []
    for clip in beside.clips(entry.names):
        if clip.seconds <= most_seconds and len(text_ids(whisper, clip.text)) + beside_text <= most_tokens:
            names.append(clip.name)
    if not names:
        dataset = entry.settings.dataset
        raise InputError(
            f"data.extra: {dataset}: no clip of it is short enough for {whisper.name}; cut them, or leave it"
        )
    return dataclasses.replace(beside, split=Split(tuple(names), (), ()))
