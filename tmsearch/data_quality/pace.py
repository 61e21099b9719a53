"""Clips too short for their text: the shortest ones, and those that nobody could have spoken."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tmsearch.data.corpus import Clip

# What the fastest speakers on record do not reach (655 words a minute, some 25 letters a second); a character of
# Chinese or Japanese and a syllable of Korean take longer than a letter.
WORDS_A_SECOND = 12.0
LETTERS_A_SECOND = 40.0
SYLLABLES_A_SECOND = 16.0
_SYLLABIC = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "YI ")  # how Unicode's names of them start
SHOWN = 3  # clips of each list in the text


@dataclass(frozen=True)
class PacedClip:
    """A clip's length in seconds and its number of words."""

    name: str
    seconds: float
    words: int

    def __str__(self) -> str:
        return f"{self.name} ({self.seconds:.2f} s, {self.words} {'word' if self.words == 1 else 'words'})"


def least_seconds(text: str) -> float:
    """The time without which nobody says `text`, in seconds; 0 for a text without letters."""
    letters = 0
    syllables = 0
    for character in text:
        if not character.isalnum():
            continue
        if ord(character) >= 0x1100 and unicodedata.name(character, "").startswith(_SYLLABIC):
            syllables += 1
        else:
            letters += 1
    words = len(text.split())
    by_letter = letters / LETTERS_A_SECOND + syllables / SYLLABLES_A_SECOND
    return max(by_letter, words / WORDS_A_SECOND if words > 1 else 0.0)


def shortest(clips: Sequence[Clip], most: int) -> tuple[PacedClip, ...]:
    """The shortest clips, the shortest first."""
    ordered = sorted(clips, key=lambda clip: (clip.seconds, clip.name))
    return tuple(_paced(clip) for clip in ordered[:most])


def impossible(clips: Sequence[Clip]) -> tuple[PacedClip, ...]:
    """The clips whose text cannot be said in their time, the worst first."""
    lacking = [(clip.seconds / least_seconds(clip.text), clip.name, clip) for clip in clips if _is_impossible(clip)]
    return tuple(_paced(clip) for _, _, clip in sorted(lacking, key=lambda entry: entry[:2]))


def remarks(clips: Sequence[Clip]) -> list[str]:
    """The shortest clip and, if there are any, the impossible ones, a line each."""
    lines = [f"shortest: {clip}" for clip in shortest(clips, 1)]
    impossible_clips = impossible(clips)
    if impossible_clips:
        listing = ", ".join(map(str, impossible_clips[:SHOWN]))
        more = f" and {len(impossible_clips) - SHOWN} more" if len(impossible_clips) > SHOWN else ""
        lines.append(
            f"impossible: {len(impossible_clips)} of {len(clips)} clips, with more words than their time can hold: "
            f"{listing}{more}; check their texts, or leave them out"
        )
    return lines


def _is_impossible(clip: Clip) -> bool:
    return clip.seconds < least_seconds(clip.text)


def _paced(clip: Clip) -> PacedClip:
    return PacedClip(clip.name, clip.seconds, len(clip.text.split()))
