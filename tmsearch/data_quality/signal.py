"""Measures of a recording before anything trains on it: hum, noise, pauses, offset, pace; torch-free, from samples.

Shapes: `positions` are samples in time at 16 kHz, `frames` are windows of them, `bins` frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.signal

from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.data.corpus import Clip
from tmsearch.data_quality.summary import FLOOR, bandwidth, decibels

Floats = npt.NDArray[np.float64]

MAINS = (50.0, 60.0)  # Hz
HARMONICS = 4  # of the mains, the fundamental among them
_DRIFT = (-0.2, -0.1, 0.0, 0.1, 0.2)  # Hz that a grid is off its frequency
_NEIGHBOURS = (-8, -7, -6, -5, -4, -3, 3, 4, 5, 6, 7, 8)  # resolutions (1/T) away from a line
_DECIMATION = 16  # 1 kHz is enough for four harmonics
_TRANSFORM = 1 << 16  # points: 0.015 Hz apart
# Of Rayleigh-distributed noise one value in 59,000 lies 12 dB above the median.
PROMINENT = 12.0  # dB
_FRAME, _HOP = 400, 160  # samples: 25 ms every 10 ms
_SPEECH_POWER = 2.0  # times the noise's power: speech is at least as loud
_FADED = 30.0  # dB below a clip's loud frames: silence, unless the noise is louder
_SPECTRUM_FRAME = 1024  # samples: the long-term spectrum has 15.6 Hz a bin


@dataclass(frozen=True)
class Hum:
    """A steady tone of the mains: fundamental in Hz, RMS with its harmonics in dBFS, dB above its neighbourhood."""

    frequency: float
    level: float
    prominence: float

    @property
    def is_present(self) -> bool:
        return self.prominence >= PROMINENT


@dataclass(frozen=True)
class Pauses:
    """Seconds without speech: before it, after it, and the longest pause inside it."""

    before: float
    after: float
    inside: float


@dataclass(frozen=True)
class ClipMeasures:
    """One clip. Levels in dBFS (a full-scale sine has an RMS of -3), times in seconds, `dc` a share of full scale."""

    name: str
    text: str
    seconds: float
    words: int
    peak: float
    rms: float
    clipped: float  # share of samples
    bandwidth: float  # Hz below which 99 % of the energy lies
    dc: float
    hum: Hum
    noise: float  # floor, dBFS
    snr: float  # dB
    pauses: Pauses

    @property
    def pace(self) -> float:
        """Words a second of the whole clip."""
        return self.words / self.seconds


def measure(clip: Clip, samples: Samples) -> ClipMeasures:
    """Measures one clip; `samples` [positions] are its own, 16 kHz mono."""
    noise, snr = noise_and_snr(samples)
    return ClipMeasures(
        name=clip.name,
        text=clip.text,
        seconds=clip.seconds,
        words=len(clip.text.split()),
        peak=decibels(clip.recording.peak),
        rms=decibels(clip.recording.rms),
        clipped=clip.recording.clipped,
        bandwidth=bandwidth(samples),
        dc=float(samples.mean(dtype=np.float64)),
        hum=hum(samples),
        noise=noise,
        snr=snr,
        pauses=pauses(samples),
    )


def measure_clips(clips: Sequence[Clip], decode: Callable[[str], Samples]) -> tuple[tuple[ClipMeasures, ...], Floats]:
    """The measures of every clip, each decoded once, and their long-term average spectrum [bins] (see `spectrum`)."""
    measures = []
    power = np.zeros(_SPECTRUM_FRAME // 2 + 1)  # [bins]
    for clip in clips:
        samples = decode(clip.name)
        measures.append(measure(clip, samples))
        power += spectrum(samples)
    return tuple(measures), power / max(1, len(clips))


def hum(samples: Samples) -> Hum:
    """The stronger of 50 and 60 Hz hum in `samples` [positions].

    A hum keeps its phase over a whole clip, a voice does not: each line's amplitude is that of the clip's Hann-windowed
    Fourier sum at its frequency, 2 |sum(w x exp(-j 2 pi f t))| / sum(w), at the best of five frequencies within 0.2 Hz;
    its neighbourhood is the median of the same 3 to 8 resolutions (1/T) away on both sides. `level` is the RMS of
    the fundamental and its harmonics together, of those that are prominent; `prominence` is the fundamental's, or the
    second most prominent harmonic's where that is higher: rectifiers hum at 100 Hz and 200 Hz and hardly at 50.
    """
    seconds = len(samples) / SAMPLE_RATE
    if seconds < 0.25:  # too short to resolve 50 and 60 Hz
        return Hum(MAINS[0], FLOOR, 0.0)
    low = scipy.signal.resample_poly(samples - samples.mean(dtype=np.float64), 1, _DECIMATION)  # [positions / 16]
    # A Hann window's sum is half its length, a sine's line half its amplitude.
    amplitudes = np.abs(np.fft.rfft(np.hanning(len(low)) * low, _TRANSFORM)) * 4 / len(low)  # [bins]
    return max((_mains_hum(amplitudes, mains, seconds) for mains in MAINS), key=lambda hum: hum.prominence)


def _mains_hum(amplitudes: Floats, mains: float, seconds: float) -> Hum:
    lines = [_line(amplitudes, mains * harmonic, seconds) for harmonic in range(1, HARMONICS + 1)]
    fundamental, fundamental_prominence = lines[0]
    prominent = [amplitude for amplitude, prominence in lines if prominence >= PROMINENT] or [fundamental]
    rms = float(np.sqrt(sum(amplitude**2 for amplitude in prominent) / 2))
    second = sorted(prominence for _, prominence in lines)[-2]
    return Hum(mains, decibels(rms), max(fundamental_prominence, second))


def _line(amplitudes: Floats, frequency: float, seconds: float) -> tuple[float, float]:
    """Amplitude at `frequency` Hz relative to full scale, and dB above its neighbourhood."""

    def at(offsets: Sequence[float]) -> Floats:
        bins = []
        for offset in offsets:
            if frequency + offset > 5:
                bins.append(round((frequency + offset) * _TRANSFORM * _DECIMATION / SAMPLE_RATE))
        return amplitudes[bins]

    amplitude = float(at(_DRIFT).max())
    neighbourhood = float(np.median(at([resolutions / seconds for resolutions in _NEIGHBOURS])))
    prominence = 20 * np.log10((amplitude + 1e-9) / (neighbourhood + 1e-9))
    return amplitude, float(np.clip(prominence, 0.0, 100.0))


def noise_and_snr(samples: Samples) -> tuple[float, float]:
    """Noise floor in dBFS and signal-to-noise ratio in dB, both of 25 ms frames of `samples` [positions].

    The floor is the mean power N of the quietest tenth of the frames; speech is in frames of more than 2 N, of mean
    power S: SNR = 10 log10((S - N) / N), 0 where there are none. A clip without any pause has no quiet tenth: its
    floor is too high and its SNR too low.
    """
    power = _powers(samples)
    quiet = np.sort(power)[: max(1, len(power) // 10)]
    floor = max(float(quiet.mean()), 10 ** (FLOOR / 10))
    speech = power[power > _SPEECH_POWER * floor]
    snr = 10 * np.log10((float(speech.mean()) - floor) / floor) if len(speech) else 0.0
    return float(10 * np.log10(floor)), float(max(0.0, snr))


def pauses(samples: Samples) -> Pauses:
    """Silence before, after and between speech in `samples` [positions].

    A 25 ms frame is silent 30 dB below the clip's loud frames (their 95th percentile), or within 6 dB of its noise
    floor where that is higher; but never within 10 dB of the loud frames.
    """
    level = 10 * np.log10(np.maximum(_powers(samples), 10 ** (FLOOR / 10)))  # [frames]
    loud = float(np.percentile(level, 95))
    floor = float(np.percentile(level, 5))
    speech = np.flatnonzero(level >= max(loud - _FADED, min(floor + 6.0, loud - 10.0)))  # frame numbers
    step = _HOP / SAMPLE_RATE
    inside = float(np.diff(speech).max(initial=1) - 1) * step
    return Pauses(float(speech[0]) * step, float(len(level) - 1 - speech[-1]) * step, inside)


def _powers(samples: Samples) -> Floats:
    """Mean squares [frames] of 25 ms every 10 ms, without the clip's mean."""
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    padded = np.pad(centred, (0, max(0, _FRAME - len(centred))))
    sums = np.concatenate([[0.0], np.cumsum(padded**2)])  # [positions + 1]
    starts = np.arange(0, len(padded) - _FRAME + 1, _HOP)  # [frames]
    powers: Floats = np.maximum((sums[starts + _FRAME] - sums[starts]) / _FRAME, 0.0)
    return powers


def spectrum(samples: Samples) -> Floats:
    """Mean power [513] of `samples` [positions] from 0 to 8 kHz.

    Welch's method: 64 ms Hann frames, half overlapping, without their mean.
    """
    padded = np.pad(samples, (0, max(0, _SPECTRUM_FRAME - len(samples))))
    _, power = scipy.signal.welch(
        padded, SAMPLE_RATE, window="hann", nperseg=_SPECTRUM_FRAME, detrend="constant", scaling="spectrum"
    )
    as_float64: Floats = power.astype(np.float64)  # [bins]
    return as_float64


def spectrum_frequencies() -> Floats:
    """Frequencies [513] of `spectrum` in Hz."""
    frequencies: Floats = np.linspace(0, SAMPLE_RATE / 2, _SPECTRUM_FRAME // 2 + 1)
    return frequencies


def outliers(values: Sequence[float], beyond: float = 3.5) -> list[bool]:
    """Which values lie far off: a modified z-score, 0.6745 |x - median| / MAD, above `beyond`.

    Source: Iglewicz and Hoaglin 1993.
    """
    if not values:
        return []
    deviations = np.abs(np.asarray(values) - np.median(values))
    spread = float(np.median(deviations))
    return [bool(spread and 0.6745 * deviation / spread > beyond) for deviation in deviations]
