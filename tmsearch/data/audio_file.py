"""Encoded audio to samples: whatever libsndfile reads, to 16 kHz mono."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz, of every Whisper checkpoint
LONGEST = 30.0  # seconds, the window that Whisper was trained on

# A sample counts as clipped when it and a neighbour lie within 0.009 dB of full scale: a lone one is only a peak.
_FULL_SCALE = 0.999


class UnusableAudioError(Exception):
    """A recording that no model can learn from; the message is the reason."""


@dataclass(frozen=True)
class Recording:
    """What a clip was before it became 16 kHz mono: rate in Hz, levels relative to full scale, share clipped."""

    sample_rate: int
    channels: int
    peak: float
    rms: float
    clipped: float


UNHEARD = Recording(sample_rate=SAMPLE_RATE, channels=1, peak=0.0, rms=0.0, clipped=0.0)


def decode(encoded: bytes) -> tuple[Samples, int]:
    """The samples [n, channels] at their own rate, and that rate in Hz.

    Raises Unusable for what libsndfile cannot read, for NaN or infinities, and for more than LONGEST seconds, of
    which no more than LONGEST is ever decoded.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            rate = file.samplerate
            samples = file.read(int(LONGEST * rate) + 1, dtype="float32", always_2d=True)
            declared = file.frames / rate
    except soundfile.LibsndfileError as error:
        raise UnusableAudioError(f"unreadable: {error.error_string}") from None
    if len(samples) > LONGEST * rate:
        raise UnusableAudioError(f"longer than {LONGEST:g} s: {max(declared, len(samples) / rate):.1f} s")
    if not np.isfinite(samples).all():
        raise UnusableAudioError("unreadable: holds NaN or infinite samples")
    return samples, rate


def mono(samples: Samples, rate: int) -> Samples:
    """[n, channels] at `rate` Hz -> [m] at SAMPLE_RATE: the channels' mean, resampled by soxr at its high quality."""
    mixed = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mixed)
    resampled: Samples = soxr.resample(mixed, rate, SAMPLE_RATE)
    return resampled


def inspect(encoded: bytes) -> tuple[float, Recording]:
    """Duration in seconds and levels; raises Unusable for what `decode` refuses, the empty and the silent."""
    samples, rate = decode(encoded)
    if len(samples) * SAMPLE_RATE // rate < 1:
        raise UnusableAudioError("empty: not one sample")
    mixed = samples.mean(axis=1)
    if mixed.max() == mixed.min():
        raise UnusableAudioError("all digital silence")
    level = np.abs(samples)
    hot = level >= _FULL_SCALE
    beside = np.zeros_like(hot)
    beside[1:] |= hot[:-1]
    beside[:-1] |= hot[1:]
    return len(samples) / rate, Recording(
        sample_rate=rate,
        channels=samples.shape[1],
        peak=float(level.max()),
        rms=float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
        clipped=float(np.mean(hot & beside)),
    )
