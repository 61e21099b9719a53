"""A clip as a page shows it: sound, spectrogram, and the words of its reference and hypothesis side by side."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tmsearch.data.audio_file import Samples
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data_quality.summary import decibels
from tmsearch.evaluation.alignment import AlignedSpan, align
from tmsearch.evaluation.scores import ClipScore, worst_first
from tmsearch.media.clip_media import ClipMedia

# Characters of a page's sounds and pictures. With the chart library's 5 MB a page stays below 20 MB and opens in 3 s.
MAX_MEDIA = 12_000_000


@dataclass(frozen=True)
class ClipCard:
    """A clip, and its scores where it was scored. `level` is in dBFS.

    `sound` and `picture` are data URIs, None where the audio cannot be read or does not fit into the page. `alignment`
    is that of hypothesis and reference; the zero-shot fields are the untrained model's, None where it was not scored.
    """

    name: str
    reference: str
    hypothesis: str | None = None
    alignment: tuple[AlignedSpan, ...] = ()
    errors: int = 0
    words: int = 0
    wer: float | None = None
    zero_shot_alignment: tuple[AlignedSpan, ...] | None = None
    zero_shot_hypothesis: str = ""
    zero_shot_wer: float | None = None
    seconds: float | None = None
    level: float | None = None
    sound: str | None = None
    picture: str | None = None
    reasons: tuple[str, ...] = ()


def scored_cards(
    scores: Sequence[ClipScore],
    zero_shot: Sequence[ClipScore],
    clips: Mapping[str, Clip],
    decode: Callable[[str], Samples],
    language: str,
    rule: str | None = None,
) -> tuple[ClipCard, ...]:
    """The clips of an evaluation in its order; those with the most errors have sounds, as many as MAX_MEDIA holds.

    Args:
        scores: the evaluation's.
        zero_shot: the untrained model's, or none.
        clips: by name; those that are not among them get no sound.
        decode: gives the samples [n], 16 kHz mono, of a clip by its name.
        language: of the texts, for their normalization.
        rule: the normalizer's, one of config.NORMALIZERS; None: by the language.
    """
    zero_shot_by_name = {score.name: score for score in zero_shot}
    cards = {}
    room = MAX_MEDIA
    compare = functools.partial(align, language=language, rule=rule)
    for score in worst_first(scores):
        clip = clips.get(score.name)
        sound, picture = _media(decode(score.name)) if clip and room > 0 else (None, None)
        room -= len(sound or "") + len(picture or "")
        cards[score.name] = _scored_card(score, zero_shot_by_name.get(score.name), clip, compare, sound, picture)
    return tuple(cards[score.name] for score in scores)


def _scored_card(
    score: ClipScore,
    zero_shot: ClipScore | None,
    clip: Clip | None,
    compare: Callable[..., tuple[AlignedSpan, ...]],
    sound: str | None,
    picture: str | None,
) -> ClipCard:
    return ClipCard(
        name=score.name,
        reference=score.reference,
        hypothesis=score.hypothesis,
        alignment=compare(score.reference, score.hypothesis),
        errors=score.edits,
        words=score.words,
        wer=score.wer,
        zero_shot_alignment=compare(zero_shot.reference, zero_shot.hypothesis) if zero_shot else None,
        zero_shot_hypothesis=zero_shot.hypothesis if zero_shot else "",
        zero_shot_wer=zero_shot.wer if zero_shot else None,
        seconds=clip.seconds if clip else None,
        level=decibels(clip.recording.rms) if clip else None,
        sound=sound,
        picture=picture,
    )


def silent_clips_note(cards: Sequence[ClipCard]) -> str:
    """A sentence where some clips have no sound because the page would become too large; else empty."""
    count = sum(card.sound is not None for card in cards)
    if count in (0, len(cards)):
        return ""
    return f"Only the {count} with the most errors have sounds and pictures: all would make the page too large."


def odd_cards(
    corpus: Corpus, reasons: Mapping[str, Sequence[str]], most: int, order: Callable[[str], float] | None = None
) -> tuple[ClipCard, ...]:
    """At most `most` clips with what is odd about them, those with the most reasons first.

    Clips with equally many reasons are in the order of `order` of their names, the lowest first.
    """
    clips = {clip.name: clip for clip in corpus.clips}

    def position(name: str) -> tuple[int, float, str]:
        return -len(reasons[name]), order(name) if order else 0.0, name

    cards = []
    for name in sorted(reasons, key=position)[:most]:
        if name in clips:
            cards.append(_odd_card(clips[name], corpus.decode(name), reasons[name]))
    return tuple(cards)


def _odd_card(clip: Clip, samples: Samples, reasons: Sequence[str]) -> ClipCard:
    sound, picture = _media(samples)
    return ClipCard(
        name=clip.name,
        reference=clip.text,
        words=len(clip.text.split()),
        seconds=clip.seconds,
        level=decibels(clip.recording.rms),
        sound=sound,
        picture=picture,
        reasons=tuple(reasons),
    )


def _media(samples: Samples) -> tuple[str, str]:
    """Sound and thumbnail of samples [n], 16 kHz mono, as data URIs."""
    media = ClipMedia(samples)
    return _data_uri("audio/mpeg", media.mp3), _data_uri("image/png", media.thumbnail)


def _data_uri(mime_type: str, content: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(content).decode('ascii')}"
