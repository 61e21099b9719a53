"""Seeded augmentations for throat-microphone speech: speed, throat filter, level, SpecAugment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import soxr
import torch

from tmsearch.config import TrainConfig

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
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
RESONANCE_WIDTH = 0.25  # octaves, standard deviation
FILTER_ORDER = 4  # 24 dB an octave
_WAVEFORM, _LOG_MEL = 1, 2  # streams of random numbers, so that turning one kind on leaves the other as it was


def waveform(samples: Samples, config: TrainConfig, step: int, place: int, longest: float) -> Samples | None:
    """The clip at another speed and perhaps through a throat filter; None where it stays as it is.

    `samples` [n] at 16 kHz; `place` is the clip's in the batch of update `step`; nothing is slowed down beyond
    `longest` seconds, which is what the encoder hears. A function of its arguments and the seed alone.
    """
    rng = np.random.default_rng([config.seed, _WAVEFORM, step, place])
    speed, filtered = rng.uniform(1 - config.speed, 1 + config.speed), rng.random() < config.throat_filter
    if config.speed == 0 and not filtered:
        return None
    changed = samples
    if config.speed:
        # The input's rate is called higher than it is by `speed`, so that what comes out is shorter by it.
        slowest = len(samples) / (longest * SAMPLE_RATE)
        changed = soxr.resample(samples, SAMPLE_RATE * max(speed, slowest), SAMPLE_RATE)
    return throat_filter(changed, rng) if filtered else changed


def throat_filter(samples: Samples, rng: np.random.Generator) -> Samples:
    """`samples` [n] at 16 kHz through a random band-pass with a resonance, at the loudness (RMS) that they had."""
    low, high = rng.uniform(*LOW_CUT_HZ), np.exp(rng.uniform(*np.log(HIGH_CUT_HZ)))
    resonance, gain_db = rng.uniform(*RESONANCE_HZ), rng.uniform(*RESONANCE_DB)
    hertz = np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 1e-3)
    # Magnitudes of Butterworth filters; the phase is left alone, since the mel spectrogram does not see it.
    response = 1 / np.sqrt((1 + (low / hertz) ** (2 * FILTER_ORDER)) * (1 + (hertz / high) ** (2 * FILTER_ORDER)))
    octaves = np.log2(hertz / resonance)
    response *= 10 ** (gain_db / 20 * np.exp(-0.5 * (octaves / RESONANCE_WIDTH) ** 2))
    filtered = np.fft.irfft(np.fft.rfft(samples) * response, n=len(samples))
    power = float(np.mean(np.square(filtered)))
    scale = np.sqrt(float(np.mean(np.square(samples))) / power) if power > 0 else 1.0
    return (filtered * scale).astype(np.float32)


def changes_waveform(config: TrainConfig) -> bool:
    """Whether any clip's waveform is changed, so that its log-mel must be made anew."""
    return config.speed > 0 or config.throat_filter > 0


def log_mels(
    mels: torch.Tensor, lengths: Sequence[int], config: TrainConfig, step: int, places: Sequence[int]
) -> torch.Tensor:
    """`mels` [clips, n_mels, frames] with random levels and SpecAugment's masks: a copy, or itself where neither is on.

    `lengths` are the clips' own frames, `places` the clips' places in the batch of update `step`.
    """
    if not (config.level_db or config.spec_time_masks or config.spec_freq_masks):
        return mels
    augmented = mels.clone()
    for index, (length, place) in enumerate(zip(lengths, places, strict=True)):
        rng = np.random.default_rng([config.seed, _LOG_MEL, step, place])
        if config.level_db:
            _shift_level(augmented[index], rng.uniform(-config.level_db, config.level_db))
        _mask(augmented[index], min(length, mels.shape[-1]), config, rng)
    return augmented


def _shift_level(mel: torch.Tensor, decibels: float) -> None:
    """A gain on the waveform, as a constant on its log-mel [n_mels, frames], in place.

    Exact where the clip's loudest frame lies over -20 dB of power, as speech does: the extractor's floor then
    moves along with it.
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
