"""A dataset's health: what its recordings have in common, and which of them a person should hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.data.audio_file import SAMPLE_RATE
from tmsearch.data.corpus import Corpus
from tmsearch.data_quality import signal
from tmsearch.data_quality.signal import ClipMeasures, Floats
from tmsearch.data_quality.summary import Description, describe

CLIPPED = 1e-3  # of a clip's samples: from here on it can be heard
NOISY = 10.0  # dB of SNR
LONG_PAUSE = 1.5  # seconds before or after the words
OFFSET = 0.01  # of full scale
LOUD_HUM = 30.0  # dB: a hum that is no more below the clip's own level
NARROW = 1000.0  # Hz: intelligible speech has more


@dataclass(frozen=True)
class Health:
    """`findings` are sentences, what matters most first; `reasons` say by clip what is odd about it."""

    description: Description
    clips: tuple[ClipMeasures, ...]
    spectrum: Floats  # mean power [513], 0 to 8 kHz
    findings: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]


def examine(corpus: Corpus) -> Health:
    """Listens to every clip of the corpus."""
    found, spectrum = signal.measure_clips(corpus.clips, corpus.decode)
    odd = reasons(found)
    described = describe(corpus, bandwidths=[one.bandwidth for one in found])
    return Health(described, found, spectrum, _findings(described, found), odd)


def reasons(clips: Sequence[ClipMeasures]) -> dict[str, tuple[str, ...]]:
    """What is odd about each clip that is odd, in words."""
    pace = signal.outliers([one.pace for one in clips])
    length = signal.outliers([float(np.log(one.seconds)) for one in clips])
    level = signal.outliers([one.rms for one in clips])
    found = {}
    for one, odd_pace, odd_length, odd_level in zip(clips, pace, length, level, strict=True):
        said = [
            (one.clipped > CLIPPED, f"clipped: {100 * one.clipped:.1f} % of its samples"),
            (one.snr < NOISY, f"noise: only {one.snr:.0f} dB below the speech"),
            (one.hum.is_present and one.rms - one.hum.level < LOUD_HUM, _hum(one)),
            (abs(one.dc) > OFFSET, f"DC offset: {one.dc:+.3f} of full scale"),
            (one.bandwidth < NARROW, f"bandwidth: 99 % of its energy below {one.bandwidth:.0f} Hz"),
            (one.pauses.before > LONG_PAUSE, f"{one.pauses.before:.1f} s of silence before the words"),
            (one.pauses.after > LONG_PAUSE, f"{one.pauses.after:.1f} s of silence after the words"),
            (one.pauses.inside > LONG_PAUSE, f"{one.pauses.inside:.1f} s of silence between words"),
            (odd_pace, f"{one.pace:.1f} words a second: does the text fit?"),
            (odd_length, f"unusual length: {one.seconds:.1f} s"),
            (odd_level, f"unusual level: {one.rms:.0f} dBFS"),
        ]
        kept = tuple(text for holds, text in said if holds)
        if kept:
            found[one.name] = kept
    return found


def _hum(one: ClipMeasures) -> str:
    hum = one.hum
    return f"{hum.frequency:.0f} Hz hum at {hum.level:.0f} dBFS, {hum.prominence:.0f} dB above its neighbours"


def _findings(described: Description, clips: Sequence[ClipMeasures]) -> tuple[str, ...]:
    """What an owner of recordings should know before spending GPU time."""
    count = len(clips)
    found = []
    hum = [one for one in clips if one.hum.is_present]
    clipped = [one for one in clips if one.clipped > CLIPPED]
    noisy = [one for one in clips if one.snr < NOISY]
    spread = described.rms.high - described.rms.low
    if clipped:
        found.append(f"{_of(len(clipped), count)} are clipped audibly: lower the gain when recording.")
    if hum:
        level = float(np.median([one.hum.level for one in hum]))
        hertz = max((50.0, 60.0), key=lambda mains: sum(one.hum.frequency == mains for one in hum))
        found.append(f"{_of(len(hum), count)} hum with the mains ({hertz:.0f} Hz), at {level:.0f} dBFS in the median.")
    if noisy:
        found.append(f"{_of(len(noisy), count)} have noise less than {NOISY:.0f} dB below the speech.")
    if spread > 12:
        found.append(
            f"Levels spread over {spread:.0f} dB (90 % of the clips): search normalize_audio, it may be worth it."
        )
    silent = sum(one.pauses.before + one.pauses.after for one in clips)
    if silent > 0.15 * described.seconds:
        found.append(f"{100 * silent / described.seconds:.0f} % of the time is silence before or after the words.")
    band = described.bandwidth.median
    found.append(
        f"99 % of the energy lies below {band:.0f} Hz in the median clip"
        + (": as is usual for a throat microphone." if band < 2500 else "; a throat microphone has less.")
    )
    if described.repeated:
        clips_in = sum(times for _, times in described.repeated)
        found.append(
            f"{len(described.repeated)} sentences occur more than once, in {clips_in} clips; a split keeps "
            "each of them on one side."
        )
    if described.dropped:
        found.append(f"{len(described.dropped)} rows cannot be used; they are listed below.")
    return tuple(found)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} clips"


def nyquist_bins() -> Floats:
    """Frequencies of `Health.spectrum`, Hz [513]."""
    found: Floats = np.linspace(0, SAMPLE_RATE / 2, 513)
    return found
