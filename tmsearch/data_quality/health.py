"""A dataset's health: what its recordings have in common, and which of them a person should listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.data.corpus import Corpus
from tmsearch.data_quality import signal
from tmsearch.data_quality.signal import ClipMeasures, Floats
from tmsearch.data_quality.summary import Description, describe

CLIPPED = 1e-3  # of a clip's samples: audible from here on
NOISY = 10.0  # dB of SNR
LONG_PAUSE = 1.5  # seconds before, after or between the words
OFFSET = 0.01  # of full scale
LOUD_HUM = 30.0  # dB: a hum that is less than this below the clip's own level
NARROW = 1000.0  # Hz: intelligible speech has more
WIDE_SPREAD = 12.0  # dB of RMS level between quiet and loud clips
THROAT_BANDWIDTH = 2500.0  # Hz: a throat microphone has less
SILENT_SHARE = 0.15  # of the dataset's time


@dataclass(frozen=True)
class Health:
    """`findings` are sentences, the most important first; `reasons` say, by clip, what is odd about it."""

    description: Description
    clips: tuple[ClipMeasures, ...]
    spectrum: Floats  # mean power [513], see signal.spectrum
    findings: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]


def examine(corpus: Corpus) -> Health:
    """Measures every clip of the corpus."""
    clips, spectrum = signal.measure_clips(corpus.clips, corpus.decode)
    description = describe(corpus, bandwidths=[clip.bandwidth for clip in clips])
    findings = (*_recording_findings(description, clips), *_dataset_findings(description, clips))
    return Health(description, clips, spectrum, findings, reasons(clips))


def reasons(clips: Sequence[ClipMeasures]) -> dict[str, tuple[str, ...]]:
    """What is odd about each clip that is odd, in words."""
    odd_pace = signal.outliers([clip.pace for clip in clips])
    odd_length = signal.outliers([float(np.log(clip.seconds)) for clip in clips])
    odd_level = signal.outliers([clip.rms for clip in clips])
    by_name = {}
    for index, clip in enumerate(clips):
        compared = [
            (odd_pace[index], f"{clip.pace:.1f} words a second: does the text fit?"),
            (odd_length[index], f"unusual length: {clip.seconds:.1f} s"),
            (odd_level[index], f"unusual level: {clip.rms:.0f} dBFS"),
        ]
        clip_reasons = tuple(text for holds, text in [*_own_reasons(clip), *compared] if holds)
        if clip_reasons:
            by_name[clip.name] = clip_reasons
    return by_name


def _own_reasons(clip: ClipMeasures) -> list[tuple[bool, str]]:
    """Each thing that can be odd about a clip by itself: whether it is, and the words for it."""
    hum = clip.hum
    pauses = clip.pauses
    hum_text = f"{hum.frequency:.0f} Hz hum at {hum.level:.0f} dBFS, {hum.prominence:.0f} dB above its neighbours"
    return [
        (clip.clipped > CLIPPED, f"clipped: {100 * clip.clipped:.1f} % of its samples"),
        (clip.snr < NOISY, f"noise: only {clip.snr:.0f} dB below the speech"),
        (hum.is_present and clip.rms - hum.level < LOUD_HUM, hum_text),
        (abs(clip.dc) > OFFSET, f"DC offset: {clip.dc:+.3f} of full scale"),
        (clip.bandwidth < NARROW, f"bandwidth: 99 % of its energy below {clip.bandwidth:.0f} Hz"),
        (pauses.before > LONG_PAUSE, f"{pauses.before:.1f} s of silence before the words"),
        (pauses.after > LONG_PAUSE, f"{pauses.after:.1f} s of silence after the words"),
        (pauses.inside > LONG_PAUSE, f"{pauses.inside:.1f} s of silence between words"),
    ]


def _recording_findings(description: Description, clips: Sequence[ClipMeasures]) -> list[str]:
    """How the clips were recorded, as an owner of recordings should know before spending GPU time."""
    findings = []
    clipped = sum(clip.clipped > CLIPPED for clip in clips)
    humming = [clip.hum for clip in clips if clip.hum.is_present]
    noisy = sum(clip.snr < NOISY for clip in clips)
    spread = description.rms.high - description.rms.low
    if clipped:
        findings.append(f"{clipped} of {len(clips)} clips are clipped audibly: lower the gain when recording.")
    if humming:
        level = float(np.median([hum.level for hum in humming]))
        frequency = max(signal.MAINS, key=lambda mains: sum(hum.frequency == mains for hum in humming))
        findings.append(
            f"{len(humming)} of {len(clips)} clips hum with the mains ({frequency:.0f} Hz), at {level:.0f} dBFS in the "
            "median."
        )
    if noisy:
        findings.append(f"{noisy} of {len(clips)} clips have noise less than {NOISY:.0f} dB below the speech.")
    if spread > WIDE_SPREAD:
        findings.append(
            f"Levels spread over {spread:.0f} dB (90 % of the clips): search normalize_audio, it may be worth it."
        )
    return findings


def _dataset_findings(description: Description, clips: Sequence[ClipMeasures]) -> list[str]:
    """Silence, bandwidth, repeated sentences and unusable rows of the dataset."""
    findings = []
    silence = sum(clip.pauses.before + clip.pauses.after for clip in clips)
    if silence > SILENT_SHARE * description.seconds:
        share = 100 * silence / description.seconds
        findings.append(f"{share:.0f} % of the time is silence before or after the words.")
    band = description.bandwidth.median
    comparison = (
        ": as is usual for a throat microphone." if band < THROAT_BANDWIDTH else "; a throat microphone has less."
    )
    findings.append(f"99 % of the energy lies below {band:.0f} Hz in the median clip{comparison}")
    if description.repeated:
        repeats = sum(count for _, count in description.repeated)
        findings.append(
            f"{len(description.repeated)} sentences occur more than once, in {repeats} clips; a split keeps "
            "each of them on one side."
        )
    if description.impossible:
        findings.append(
            f"Clips with more words than their time can hold: {len(description.impossible)}, such as "
            f"{description.impossible[0]}; check their texts."
        )
    if description.dropped:
        findings.append(f"{len(description.dropped)} rows cannot be used; they are listed below.")
    return findings
