"""Encoded audio -> samples: whatever libsndfile reads, as 16 kHz mono.

Shapes: `positions` are sample positions in time, `channels` the recording's channels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from tmsearch.errors import TmsearchError

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz, of every Whisper checkpoint
MAX_SECONDS = 30.0  # the window that Whisper was trained on

# A sample counts as clipped when it and a neighbour lie within 0.009 dB of full scale: a lone one is only a peak.
_FULL_SCALE = 0.999


class UnusableAudioError(TmsearchError):
    """A recording that no model can learn from; the message is the reason."""


@dataclass(frozen=True)
class Recording:
    """A clip before it became 16 kHz mono: rate in Hz, levels relative to full scale, share of samples clipped."""

    sample_rate: int
    channels: int
    peak: float
    rms: float
    clipped: float


UNKNOWN_RECORDING = Recording(sample_rate=SAMPLE_RATE, channels=1, peak=0.0, rms=0.0, clipped=0.0)


def decode(encoded: bytes) -> tuple[Samples, int]:
    """Decodes a file's bytes; never more than MAX_SECONDS of it.

    Returns:
        The samples [positions, channels] at their own rate, and that rate in Hz.

    Raises:
        UnusableAudioError: libsndfile cannot read it, it holds NaN or infinities, or it is longer than MAX_SECONDS.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            rate = file.samplerate
            samples = file.read(int(MAX_SECONDS * rate) + 1, dtype="float32", always_2d=True)  # [positions, channels]
            declared_seconds = file.frames / rate
    except soundfile.LibsndfileError as error:
        raise UnusableAudioError(f"unreadable: {error.error_string}") from None
    if len(samples) > MAX_SECONDS * rate:
        seconds = max(declared_seconds, len(samples) / rate)
        raise UnusableAudioError(f"longer than {MAX_SECONDS:g} s: {seconds:.1f} s")
    if not np.isfinite(samples).all():
        raise UnusableAudioError("unreadable: holds NaN or infinite samples")
    return samples, rate


def mono(samples: Samples, rate: int) -> Samples:
    """Averages the channels and resamples by soxr at its high quality.

    Args:
        samples: [positions, channels].
        rate: Of `samples`, in Hz.

    Returns:
        [positions] at SAMPLE_RATE.
    """
    mixed = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mixed)
    resampled: Samples = soxr.resample(mixed, rate, SAMPLE_RATE)
    return resampled


def measure(encoded: bytes) -> tuple[float, Recording]:
    """Duration in seconds and levels of a file's bytes.

    Raises:
        UnusableAudioError: As `decode`, and for empty and silent recordings.
    """
    samples, rate = decode(encoded)
    if len(samples) * SAMPLE_RATE // rate < 1:
        raise UnusableAudioError("empty: not one sample")
    mixed = samples.mean(axis=1)
    if mixed.max() == mixed.min():
        raise UnusableAudioError("all digital silence")
    recording = Recording(
        sample_rate=rate,
        channels=samples.shape[1],
        peak=float(np.abs(samples).max()),
        rms=float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
        clipped=_clipped_share(samples),
    )
    return len(samples) / rate, recording


def _clipped_share(samples: Samples) -> float:
    full_scale = np.abs(samples) >= _FULL_SCALE  # [positions, channels]
    has_full_scale_neighbour = np.zeros_like(full_scale)
    has_full_scale_neighbour[1:] |= full_scale[:-1]
    has_full_scale_neighbour[:-1] |= full_scale[1:]
    return float(np.mean(full_scale & has_full_scale_neighbour))
