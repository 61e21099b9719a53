"""A clip as a page shows it: its sound, its spectrogram, what was said and what was heard."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tmsearch.data.audio_file import Samples
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data_quality.summary import decibels
from tmsearch.evaluation import alignment
from tmsearch.evaluation.alignment import AlignedSpan
from tmsearch.evaluation.scores import ClipScore, worst_first
from tmsearch.media import sounds

# Characters of a page's sounds and pictures: with the chart library's 5 MB it stays below 20 MB, and opens in 3 s.
LARGEST = 12_000_000


@dataclass(frozen=True)
class ClipCard:
    """`sound` and `picture` are data URIs, None where the audio is not at hand; so are `seconds` and `level` (dBFS).

    `heard` is the alignment with the reference, `untrained` that of the zero-shot model; None where it is not known.
    """

    name: str
    reference: str
    hypothesis: str | None = None
    heard: tuple[AlignedSpan, ...] = ()
    errors: int = 0
    words: int = 0
    wer: float | None = None
    untrained: tuple[AlignedSpan, ...] | None = None
    untrained_text: str = ""
    untrained_wer: float | None = None
    seconds: float | None = None
    level: float | None = None
    sound: str | None = None
    picture: str | None = None
    reasons: tuple[str, ...] = ()


def scored(
    scores: Sequence[ClipScore],
    before: Sequence[ClipScore],
    clips: Mapping[str, Clip],
    decode: Callable[[str], Samples],
    language: str,
) -> tuple[ClipCard, ...]:
    """The clips of an evaluation, in its order, beside the untrained model's (`before`; may be empty).

    Sounds and pictures are those of the clips with the most errors, as many as LARGEST holds.
    """
    zero_shot = {one.name: one for one in before}
    made, room = {}, LARGEST
    for one in worst_first(scores):
        heard = decode if room > 0 else None
        made[one.name] = _scored(one, zero_shot.get(one.name), clips.get(one.name), heard, language)
        room -= len(made[one.name].sound or "") + len(made[one.name].picture or "")
    return tuple(made[one.name] for one in scores)


def left_out(shown: Sequence[ClipCard]) -> str:
    """A sentence where some clips have no sound because the page would be too large."""
    count = sum(one.sound is not None for one in shown)
    if count in (0, len(shown)):
        return ""
    return f"Sounds and pictures are those of the {count} with the most errors: all would make the page too large."


def _scored(
    one: ClipScore,
    before: ClipScore | None,
    clip: Clip | None,
    decode: Callable[[str], Samples] | None,
    language: str,
) -> ClipCard:
    samples = decode(one.name) if clip and decode else None
    return ClipCard(
        name=one.name,
        reference=one.reference,
        hypothesis=one.hypothesis,
        heard=alignment.align(one.reference, one.hypothesis, language),
        errors=one.edits,
        words=one.words,
        wer=one.wer,
        untrained=alignment.align(before.reference, before.hypothesis, language) if before else None,
        untrained_text=before.hypothesis if before else "",
        untrained_wer=before.wer if before else None,
        seconds=clip.seconds if clip else None,
        level=decibels(clip.recording.rms) if clip else None,
        sound=None if samples is None else sound(samples),
        picture=None if samples is None else picture(samples),
    )


def shown(clip: Clip, samples: Samples, reasons: Sequence[str]) -> ClipCard:
    """A clip of a dataset, with what is odd about it."""
    return ClipCard(
        name=clip.name,
        reference=clip.text,
        words=len(clip.text.split()),
        seconds=clip.seconds,
        level=decibels(clip.recording.rms),
        sound=sound(samples),
        picture=picture(samples),
        reasons=tuple(reasons),
    )


def odd_clip_cards(
    corpus: Corpus,
    reasons: Mapping[str, Sequence[str]],
    limit: int,
    quality: Callable[[str], float] = lambda name: 0.0,
) -> tuple[ClipCard, ...]:
    """At most `limit` of the clips that have `reasons`, by name: most reasons first, then the lowest `quality`."""
    by_name = {clip.name: clip for clip in corpus.clips}
    order = sorted(reasons, key=lambda name: (-len(reasons[name]), quality(name), name))
    return tuple(shown(by_name[name], corpus.decode(name), reasons[name]) for name in order[:limit] if name in by_name)


def sound(samples: Samples) -> str:
    """An MP3 as a data URI."""
    return _uri("audio/mpeg", sounds.mp3(samples))


def picture(samples: Samples) -> str:
    """A spectrogram without axes, to 4 kHz, as a data URI."""
    from tmsearch.media import images  # matplotlib takes a second

    return _uri("image/png", images.spectrogram(samples, width=4.0, height=0.9, axes=False))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
