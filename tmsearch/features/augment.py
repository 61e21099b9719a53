"""Seeded augmentations for throat-microphone speech: speed, throat filter, level, SpecAugment.

Dimension words in shape comments: samples (16 kHz), clips, frames (mel, 10 ms).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples

FRAMES_PER_SECOND = 100  # of the log-mel, 10 ms each
# The extractor's log-mel is (log10(power) + 4) / 4, with power no smaller than 1e-10; a decibel is 0.1 in log10(power).
LOG_MEL_PER_DB = 0.1 / 4
LOG_MEL_FLOOR = (-10 + 4) / 4
# A throat microphone passes 50-120 Hz to 600-1600 Hz with a resonance of 3-9 dB at 300-600 Hz, around the simulated
# ones that this project was tried on (70-700 Hz and 70-1400 Hz, resonance at 450 Hz).
LOW_CUT_HZ = (50.0, 120.0)
HIGH_CUT_HZ = (600.0, 1600.0)
RESONANCE_HZ = (300.0, 600.0)
RESONANCE_DB = (3.0, 9.0)
RESONANCE_OCTAVES = 0.25  # standard deviation
FILTER_ORDER = 4  # 24 dB an octave
# Streams of random numbers, so that turning one kind of augmentation on leaves the other as it was.
_WAVEFORM_STREAM = 1
_LOG_MEL_STREAM = 2


def waveform(samples: Samples, config: TrainConfig, step: int, index: int, longest: float) -> Samples | None:
    """Changes a clip's speed and perhaps passes it through a throat filter; a function of its arguments alone.

    Args:
        samples: The clip, [samples].
        config: The knobs `speed`, `throat_filter` and `seed`.
        step: The update, from 1.
        index: The clip's index in the batch of that update.
        longest: Seconds that the encoder takes; nothing is slowed down beyond them.

    Returns:
        The changed clip [samples], or None where it stays as it is.
    """
    rng = np.random.default_rng([config.seed, _WAVEFORM_STREAM, step, index])
    speed = rng.uniform(1 - config.speed, 1 + config.speed)
    is_filtered = rng.random() < config.throat_filter
    if config.speed == 0 and not is_filtered:
        return None
    changed = samples
    if config.speed:
        import soxr

        # The input's rate is declared higher than it is by `speed`, so that the output is shorter by it.
        slowest = len(samples) / (longest * SAMPLE_RATE)
        changed = soxr.resample(samples, SAMPLE_RATE * max(speed, slowest), SAMPLE_RATE)
    return throat_filter(changed, rng) if is_filtered else changed


def throat_filter(samples: Samples, rng: np.random.Generator) -> Samples:
    """Applies a random band-pass with a resonance to `samples` [samples]; the loudness (RMS) stays the same."""
    low = rng.uniform(*LOW_CUT_HZ)
    high = np.exp(rng.uniform(*np.log(HIGH_CUT_HZ)))
    resonance = rng.uniform(*RESONANCE_HZ)
    gain_db = rng.uniform(*RESONANCE_DB)
    hertz = np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 1e-3)  # [samples / 2 + 1]
    # Magnitudes of Butterworth filters; the phase is left alone, since the mel spectrogram does not see it.
    response = 1 / np.sqrt((1 + (low / hertz) ** (2 * FILTER_ORDER)) * (1 + (hertz / high) ** (2 * FILTER_ORDER)))
    octaves = np.log2(hertz / resonance)
    response *= 10 ** (gain_db / 20 * np.exp(-0.5 * (octaves / RESONANCE_OCTAVES) ** 2))
    filtered = np.fft.irfft(np.fft.rfft(samples) * response, n=len(samples))  # [samples]
    power = float(np.mean(np.square(filtered)))
    scale = np.sqrt(float(np.mean(np.square(samples))) / power) if power > 0 else 1.0
    return (filtered * scale).astype(np.float32)


def changes_waveform(config: TrainConfig) -> bool:
    """Whether any clip's waveform is changed, so that its log-mel must be computed anew."""
    return config.speed > 0 or config.throat_filter > 0


def log_mels(
    mels: torch.Tensor, lengths: Sequence[int], config: TrainConfig, step: int, indices: Sequence[int]
) -> torch.Tensor:
    """Applies random levels and SpecAugment's masks to log-mels.

    Args:
        mels: Log-mels of equal length, [clips, n_mels, frames].
        lengths: The clips' own frames, without padding.
        config: The knobs `level_db`, `spec_...` and `seed`.
        step: The update, from 1.
        indices: The clips' indices in the batch of that update.

    Returns:
        A changed copy, or `mels` itself where no such augmentation is on.
    """
    if not (config.level_db or config.spec_time_masks or config.spec_freq_masks):
        return mels
    augmented = mels.clone()  # [clips, n_mels, frames]
    for mel, length, index in zip(augmented, lengths, indices, strict=True):
        rng = np.random.default_rng([config.seed, _LOG_MEL_STREAM, step, index])
        if config.level_db:
            _shift_level(mel, rng.uniform(-config.level_db, config.level_db))
        _mask(mel, min(length, mels.shape[-1]), config, rng)
    return augmented


def _shift_level(mel: torch.Tensor, decibels: float) -> None:
    """A gain on the waveform, as a constant on its log-mel [n_mels, frames], in place.

    Exact where the clip's loudest frame is above -20 dB of power, as speech is: the extractor's floor then moves
    along with it.
    """
    mel.add_(decibels * LOG_MEL_PER_DB).clamp_(min=LOG_MEL_FLOOR)


def _mask(mel: torch.Tensor, length: int, config: TrainConfig, rng: np.random.Generator) -> None:
    """SpecAugment's masks (Park et al. 2019) on `mel` [n_mels, frames], in place, filled with the clip's mean."""
    if not (config.spec_time_masks or config.spec_freq_masks) or length == 0:
        return
    mean = mel[:, :length].mean()
    for _ in range(config.spec_time_masks):
        width = int(rng.integers(0, int(config.spec_time_width * length) + 1))
        start = int(rng.integers(0, length - width + 1))
        mel[:, start : start + width] = mean
    for _ in range(config.spec_freq_masks):
        width = int(rng.integers(0, min(config.spec_freq_width, mel.shape[0]) + 1))
        start = int(rng.integers(0, mel.shape[0] - width + 1))
        mel[start : start + width, :length] = mean
