"""A dataset in numbers: counts, durations, levels, bandwidth, sentences, labels, what was dropped, the split."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tmsearch import formatting
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import Split
from tmsearch.data_quality import pace
from tmsearch.data_quality.microphones import Microphone
from tmsearch.data_quality.pace import PacedClip

WIDTH = 80  # columns of the page
FLOOR = -120.0  # dBFS, below the noise of 16-bit audio: the level shown for digital silence
_FRAME = 512  # samples, 32 ms: the transform of the bandwidth
_SHOWN = 5  # entries of any list in the text; the JSON has all


@dataclass(frozen=True)
class Spread:
    """A quantity over clips."""

    low: float  # 5th percentile
    median: float
    high: float  # 95th percentile


@dataclass(frozen=True)
class Label:
    """A long transcript."""

    name: str
    words: int
    characters: int
    tokens: int | None


@dataclass(frozen=True)
class Part:
    """One part of the split, durations in seconds."""

    clips: int
    seconds: float
    sentences: int


@dataclass(frozen=True)
class Description:
    """What `tmsearch data` prints. Durations in seconds, levels in dBFS, frequencies in Hz, shares from 0 to 1."""

    notes: tuple[str, ...]
    fingerprint: str
    clips: int
    seconds: float
    duration: Spread
    longest: tuple[tuple[str, float], ...]
    shortest: tuple[PacedClip, ...]
    impossible: tuple[PacedClip, ...]  # more words than the time can hold, the worst first
    sample_rates: tuple[tuple[int, int], ...]  # (Hz, clips)
    channels: tuple[tuple[int, int], ...]  # (channels, clips)
    peak: Spread
    rms: Spread
    clipped_clips: float
    clipped_samples: float
    bandwidth: Spread  # frequency below which 99 % of a clip's energy lies
    words: int
    sentences: int
    repeated: tuple[tuple[str, int], ...]  # (normalized sentence, clips), most frequent first
    labels: tuple[Label, ...]  # the longest first
    groups: tuple[tuple[str, int], ...]  # (column, distinct values)
    dropped: tuple[tuple[str, str], ...]  # (name, reason)
    grouped_by: tuple[str, ...]
    parts: tuple[tuple[str, Part], ...]
    microphones: tuple[Microphone, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A page of plain text, 80 columns wide, without a final line break."""
        return "\n".join(_shorten(line) for line in _lines(self))


def describe(
    corpus: Corpus,
    split: Split | None = None,
    tokens: Callable[[str], int] | None = None,
    bandwidths: Sequence[float] | None = None,
    microphones: Sequence[Microphone] = (),
) -> Description:
    """Describes every usable clip, and the parts of `split` if it is given.

    `tokens` counts a text's label ids; `bandwidths` are the clips' own in Hz where they are known, else each clip is
    decoded once. `microphones` are what `microphones.survey` heard.
    """
    clips = corpus.clips
    sentences = Counter(clip.group[0] for clip in clips)
    recordings = [clip.recording for clip in clips]
    return Description(
        notes=corpus.notes,
        fingerprint=corpus.fingerprint,
        clips=len(clips),
        seconds=sum(clip.seconds for clip in clips),
        duration=_spread([clip.seconds for clip in clips]),
        longest=tuple((clip.name, clip.seconds) for clip in _largest(clips, lambda clip: clip.seconds)),
        shortest=pace.shortest(clips, _SHOWN),
        impossible=pace.impossible(clips),
        sample_rates=_counts(recording.sample_rate for recording in recordings),
        channels=_counts(recording.channels for recording in recordings),
        peak=_spread([decibels(recording.peak) for recording in recordings]),
        rms=_spread([decibels(recording.rms) for recording in recordings]),
        clipped_clips=float(np.mean([recording.clipped > 0 for recording in recordings])),
        clipped_samples=_clipped_share(clips),
        bandwidth=_spread(bandwidths or [bandwidth(corpus.decode(clip.name)) for clip in clips]),
        words=sum(len(clip.text.split()) for clip in clips),
        sentences=len(sentences),
        repeated=tuple((text, count) for text, count in sentences.most_common() if count > 1),
        labels=tuple(_label(clip, tokens) for clip in _largest(clips, lambda clip: len(clip.text))),
        groups=_groups(clips),
        dropped=tuple((row.name, row.reason) for row in corpus.dropped),
        grouped_by=split.grouped_by if split else (),
        parts=_parts(corpus, split) if split else (),
        microphones=tuple(microphones),
    )


def bandwidth(samples: Samples, share: float = 0.99) -> float:
    """Hz below which `share` of the energy of `samples` [positions] lies, without the mean; 32 ms Hann frames."""
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    padded = np.pad(centred, (0, -len(centred) % _FRAME if len(centred) else _FRAME))
    frames = padded.reshape(-1, _FRAME) * np.hanning(_FRAME)  # [frames, positions]
    energy = np.square(np.abs(np.fft.rfft(frames, axis=1))).sum(axis=0)  # [bins]
    if not energy.sum() > 0:
        return 0.0
    highest_bin = int(np.searchsorted(np.cumsum(energy), share * energy.sum()))
    return min(highest_bin, _FRAME // 2) * SAMPLE_RATE / _FRAME


def decibels(level: float) -> float:
    """An amplitude relative to full scale in dBFS."""
    return float(20 * np.log10(max(level, 10 ** (FLOOR / 20))))


def _counts(values: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(value, how often), the most frequent first."""
    return tuple(Counter(values).most_common())


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = np.percentile(values, [5, 50, 95])
    return Spread(float(low), float(median), float(high))


def _largest(clips: Sequence[Clip], size: Callable[[Clip], float]) -> list[Clip]:
    return sorted(clips, key=lambda clip: (-size(clip), clip.name))[:_SHOWN]


def _clipped_share(clips: Sequence[Clip]) -> float:
    """Share of all samples that are clipped."""
    return sum(clip.recording.clipped * clip.seconds for clip in clips) / sum(clip.seconds for clip in clips)


def _label(clip: Clip, tokens: Callable[[str], int] | None) -> Label:
    return Label(clip.name, len(clip.text.split()), len(clip.text), tokens(clip.text) if tokens else None)


def _groups(clips: Sequence[Clip]) -> tuple[tuple[str, int], ...]:
    distinct = {entry for clip in clips for entry in clip.group[1:]}
    return tuple(sorted(Counter(entry.partition("=")[0] for entry in distinct).items()))


def _parts(corpus: Corpus, split: Split) -> tuple[tuple[str, Part], ...]:
    by_name = {clip.name: clip for clip in corpus.clips}
    parts = []
    for title in ("train", "validation", "test"):
        clips = [by_name[name] for name in getattr(split, title)]
        sentences = len({clip.group[0] for clip in clips})
        parts.append((title, Part(len(clips), sum(clip.seconds for clip in clips), sentences)))
    return tuple(parts)


def _lines(summary: Description) -> list[str]:
    lines = [line for note in summary.notes for line in textwrap.wrap(note, WIDTH)] + [""]
    lines += _recording_lines(summary)
    lines += _text_lines(summary)
    for column, values in summary.groups:
        lines += _entry(column, f"{values} different{_grouping(column, summary)}")
    lines += _entry("dropped", *_dropped(summary))
    for title, part in summary.parts:
        lines += _entry(title, f"{part.clips} clips, {formatting.duration(part.seconds)}, {part.sentences} sentences")
    return [*lines, "", f"fingerprint {summary.fingerprint}"]


def _recording_lines(summary: Description) -> list[str]:
    duration = summary.duration
    rms = summary.rms
    peak = summary.peak
    band = summary.bandwidth
    rates = ", ".join(f"{rate} Hz ({count})" for rate, count in summary.sample_rates)
    channels = ", ".join(f"{number} ({count})" for number, count in summary.channels)
    return [
        *_entry("clips", f"{summary.clips}, {formatting.duration(summary.seconds)} in all; {summary.words} words"),
        *_entry(
            "durations", f"median {duration.median:.1f} s, 90 % within {duration.low:.1f} to {duration.high:.1f} s"
        ),
        *_entry("longest", *(f"{seconds:5.1f} s  {name}" for name, seconds in summary.longest[:3])),
        *_entry("shortest", *map(_short_clip, summary.shortest[:3])),
        *_entry("impossible", *_impossible(summary)),
        *_entry("recorded at", f"{rates}; channels {channels}; read as 16000 Hz mono"),
        *_entry("level, RMS", f"median {rms.median:.1f} dBFS, 90 % within {rms.low:.1f} to {rms.high:.1f}"),
        *_entry("level, peak", f"median {peak.median:.1f} dBFS, 90 % within {peak.low:.1f} to {peak.high:.1f}"),
        *_entry("clipped", f"{summary.clipped_clips:.1%} of the clips, {summary.clipped_samples:.3%} of the samples"),
        *_entry(
            "bandwidth",
            f"99 % of the energy below {band.median:.0f} Hz (median), {band.low:.0f} to {band.high:.0f} Hz",
        ),
        *_microphone_lines(summary),
    ]


def _microphone_lines(summary: Description) -> list[str]:
    if len(summary.microphones) == 1:
        return _entry("microphone", *summary.microphones[0].sound)
    lines: list[str] = []
    for microphone in summary.microphones:
        lines += [microphone.name, *(f"  {line}" for line in microphone.sound)]
    return _entry("microphones", *lines)


def _text_lines(summary: Description) -> list[str]:
    sentences = f"{summary.sentences} different, {len(summary.repeated)} of them in several clips"
    repeats = [f"{count} x  {text}" for text, count in summary.repeated[:_SHOWN]]
    labels = [_long_label(label) for label in summary.labels[:3]]
    return [*_entry("sentences", sentences, *repeats), *_entry("longest label", *labels)]


def _grouping(column: str, summary: Description) -> str:
    if column in summary.grouped_by:
        return "; kept whole"
    return "; too few or too uneven to split by" if summary.parts else ""


def _short_clip(clip: PacedClip) -> str:
    return f"{clip.seconds:5.2f} s, {clip.words} {'word' if clip.words == 1 else 'words'}  {clip.name}"


def _impossible(summary: Description) -> list[str]:
    """Clips with more words than their time can hold."""
    if not summary.impossible:
        return ["none: no clip has more words than its time can hold"]
    lines = [f"{len(summary.impossible)} with more words than their time can hold; check their texts"]
    lines += map(_short_clip, summary.impossible[: 2 * _SHOWN])
    if len(summary.impossible) > 2 * _SHOWN:
        lines.append(f"and {len(summary.impossible) - 2 * _SHOWN} more")
    return lines


def _dropped(summary: Description) -> list[str]:
    if not summary.dropped:
        return ["none"]
    lines = [f"{len(summary.dropped)} of {len(summary.dropped) + summary.clips} rows"]
    listed = summary.dropped[: 2 * _SHOWN]
    lines += [f"{name}: {reason}" for name, reason in listed]
    if len(summary.dropped) > len(listed):
        lines.append(f"and {len(summary.dropped) - len(listed)} more")
    return lines


def _long_label(label: Label) -> str:
    tokens = "" if label.tokens is None else f", {label.tokens} tokens"
    return f"{label.words} words, {label.characters} characters{tokens}: {label.name}"


def _entry(title: str, *lines: str) -> list[str]:
    """Lines with the title to the left of the first."""
    return [f"{'' if index else title:<15}{line}" for index, line in enumerate(lines)]


def _shorten(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
