"""What a throat microphone makes of speech, learnt from recordings: a filter from one long-term spectrum to another.

The long-term average spectrum of speech differs little from speaker to speaker and sentence to sentence (Byrne et al.
1994, "An international comparison of long-term average speech spectra"), so that the ratio of two such spectra is what
differs between the microphones, whether both heard the same speech or not.

Dimension words in shape comments: samples (16 kHz), bins (0 to 8 kHz), taps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tmsearch.data.audio_file import SAMPLE_RATE, Samples

Floats = npt.NDArray[np.float64]

FRAME = 1024  # samples, 64 ms: 15.6 Hz a bin
TAPS = 1025  # of the filter, 32 ms to either side
SMOOTHING_OCTAVES = 1 / 3
# The filter's gain lies between these, against its mean over speech: where there is no speech, noise would be compared.
MOST_DB = 20.0
LEAST_DB = -60.0
BAND_SHARE = 0.99  # of the energy: the band that a microphone passes


@dataclass(frozen=True)
class ThroatResponse:
    """A linear-phase filter that delays nothing, and the level behind it."""

    taps: Floats  # [taps], symmetric
    level: float  # RMS, share of full scale, that every clip is brought to

    def apply(self, samples: Samples) -> Samples:
        """`samples` [samples] as the throat microphone would have heard them, as long as they were."""
        import scipy.signal

        if not len(samples):
            return samples
        padded = np.pad(samples.astype(np.float64), TAPS // 2)
        filtered = scipy.signal.fftconvolve(padded, self.taps, mode="valid")  # [samples]
        rms = float(np.sqrt(np.mean(np.square(filtered))))
        gained: Samples = (filtered * (self.level / rms if rms > 0 else 0.0)).astype(np.float32)
        return gained

    @property
    def digest(self) -> str:
        """A sha256, in hex, of all that changes the sound."""
        return hashlib.sha256(self.taps.tobytes() + np.float64(self.level).tobytes()).hexdigest()

    def gain_db(self, hertz: float) -> float:
        """The filter's gain at a frequency, dB against its gain at the frequency where that is highest."""
        response = np.abs(np.fft.rfft(self.taps, 8 * FRAME))  # [4 * FRAME + 1]
        index = round(hertz / SAMPLE_RATE * 8 * FRAME)
        return float(20 * np.log10(max(response[index], 1e-12) / response.max()))


@dataclass(frozen=True)
class LongTermSpectrum:
    """The mean power spectrum of clips, each brought to the same level first, and the median of their levels."""

    power: Floats  # [bins]
    level: float  # RMS, share of full scale

    @property
    def band(self) -> float:
        """Hz below which BAND_SHARE of the energy lies."""
        highest = int(np.searchsorted(np.cumsum(self.power), BAND_SHARE * self.power.sum()))
        return float(_HERTZ[min(highest, len(_HERTZ) - 1)])


_HERTZ = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)  # [bins]


def long_term_spectrum(clips: Iterable[Samples]) -> LongTermSpectrum:
    """The long-term average spectrum of clips [samples], without the silent ones.

    Raises:
        ValueError: All are silent, or there are none.
    """
    window = np.hanning(FRAME)
    powers = []
    levels = []
    for samples in clips:
        centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
        rms = float(np.sqrt(np.mean(np.square(centred)))) if len(centred) else 0.0
        if rms == 0:
            continue
        padded = np.pad(centred / rms, (0, max(0, FRAME - len(centred))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[:: FRAME // 2]  # [frames, FRAME]
        powers.append(np.square(np.abs(np.fft.rfft(frames * window, axis=1))).mean(axis=0))
        levels.append(rms)
    if not powers:
        raise ValueError("no clip has any sound")
    return LongTermSpectrum(np.mean(powers, axis=0), float(np.median(levels)))


def learn(throat: LongTermSpectrum, air: LongTermSpectrum) -> ThroatResponse:
    """The filter that gives speech with the spectrum `air` that of `throat`, both smoothed over third octaves."""
    import scipy.signal

    throat_power = smoothed(throat.power)
    air_power = smoothed(air.power)
    ratio = throat_power / np.maximum(air_power, 1e-12 * air_power.max())  # [bins]
    speech = air_power / air_power.sum()
    decibels = 10 * np.log10(np.maximum(ratio, 1e-30) / float((ratio * speech).sum()))
    gains = 10 ** (np.clip(decibels, LEAST_DB, MOST_DB) / 20)  # [bins]
    taps: Floats = scipy.signal.firwin2(TAPS, _HERTZ, gains, window="hann", fs=SAMPLE_RATE)
    return ThroatResponse(taps, throat.level)


def smoothed(power: Floats, octaves: float = SMOOTHING_OCTAVES) -> Floats:
    """`power` [bins] with each bin replaced by the mean over the band of so many octaves around it."""
    bins = np.arange(len(power))
    half = 2 ** (octaves / 2)
    first = np.minimum(bins, np.ceil(bins / half).astype(int))
    last = np.clip(np.floor(bins * half).astype(int), bins, len(power) - 1)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    means: Floats = (sums[last + 1] - sums[first]) / (last + 1 - first)
    return means
