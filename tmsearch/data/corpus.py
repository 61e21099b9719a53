"""A dataset as clips: which are usable, the text of each, and its samples on demand."""

from __future__ import annotations

import functools
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tmsearch.config import DataConfig
from tmsearch.data import audio_file
from tmsearch.data.audio_file import UNKNOWN_RECORDING, Recording, Samples, UnusableAudioError
from tmsearch.data.columns import Row
from tmsearch.data.sources import Source, open_source
from tmsearch.data.text_normalizer import normalizer
from tmsearch.errors import InputError, machine_problem


@dataclass(frozen=True)
class Clip:
    """One utterance: a name that is unique in its corpus, its text with runs of white space made single spaces, and
    its duration in seconds.

    `group` lists what two splits must not share: the normalized sentence, then `column=value` for each column that
    names a speaker or a session.
    """

    name: str
    text: str
    seconds: float
    group: tuple[str, ...]
    recording: Recording = UNKNOWN_RECORDING
    # The longer recording that it is a part of, and where it starts in it, seconds; None: it is a file of its own.
    source: str = ""
    start: float | None = None


@dataclass(frozen=True)
class Dropped:
    """A row of the dataset that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Every usable clip of a dataset, by name, and every row left out.

    `fingerprint` is a sha256 over the clips' names, texts and encoded audio, whatever the order of rows. `notes` are
    remarks for a person, a line each; the first says where the clips come from. `commit` is the hub's. `languages`
    are those in the language column of usable rows, the commonest first, else those of the dataset's card. `contents`
    holds a sha256 of each clip's samples, by which copies in other formats are known. `change` is what is done to each
    clip as it is decoded.
    """

    clips: tuple[Clip, ...]
    dropped: tuple[Dropped, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    readers: Mapping[str, Callable[[], bytes]] = field(default_factory=dict, repr=False, compare=False)
    commit: str | None = None
    languages: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    change: Callable[[Samples], Samples] | None = field(default=None, repr=False, compare=False)
    _samples: dict[str, Samples] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decode(self, name: str) -> Samples:
        """The clip's samples [positions], 16 kHz mono, read anew; InputError if its file is gone or unusable now."""
        try:
            samples = audio_file.mono(*audio_file.decode(self.readers[name]()))
        except (OSError, UnusableAudioError) as error:
            if machine_problem(error):  # a limit of open files says nothing about the clip
                raise
            raise InputError(f"{name}: readable when the dataset was opened, but no longer: {error}") from None
        return samples if self.change is None else self.change(samples)

    def samples(self, name: str) -> Samples:
        """The clip's samples [positions], 16 kHz mono, read-only and cached in memory from the first call on."""
        if name not in self._samples:
            samples = self.decode(name)
            samples.flags.writeable = False
            self._samples[name] = samples
        return self._samples[name]


def load(config: DataConfig) -> Corpus:
    """Opens the dataset and decodes every row once to check it, without keeping audio in memory.

    Raises:
        InputError: The dataset cannot be reached or read, its columns cannot be found, or more than
            `config.max_dropped` of its rows are unusable.
    """
    source = open_source(config)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(functools.partial(_inspect, language=config.language), source.rows))
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    digests: dict[str, str] = {}
    contents: dict[str, str] = {}
    readers: dict[str, Callable[[], bytes]] = {}
    for row, (outcome, digest, content) in zip(source.rows, outcomes, strict=True):
        if isinstance(outcome, Dropped):
            dropped.append(outcome)
        elif outcome.name in readers:
            dropped.append(Dropped(outcome.name, "a second row of this name"))
        else:
            clips.append(outcome)
            digests[outcome.name] = digest
            contents[outcome.name] = content
            readers[outcome.name] = row.read
    clips.sort(key=lambda clip: clip.name)
    _check_dropped(clips, dropped, config)
    return Corpus(
        clips=tuple(clips),
        dropped=tuple(dropped),
        fingerprint=_fingerprint(clips, digests),
        notes=(*source.notes, *_channel_notes(clips)),
        readers=readers,
        commit=source.commit,
        languages=_languages(source, readers),
        contents=contents,
    )


def _inspect(row: Row, language: str) -> tuple[Clip | Dropped, str, str]:
    """A row as a clip or the reason why not, and the sha256 of its encoded audio and of its samples."""
    if row.problem:
        return Dropped(row.name, row.problem), "", ""
    text = " ".join((row.text or "").split())
    if not text:
        return Dropped(row.name, "without text"), "", ""
    try:
        encoded = row.read()
        if not encoded:
            return Dropped(row.name, "empty: not one byte"), "", ""
        seconds, recording, content = audio_file.measure(encoded)
    except FileNotFoundError:
        return Dropped(row.name, "its audio file is missing"), "", ""
    except OSError as error:
        if machine_problem(error):
            raise
        return Dropped(row.name, f"unreadable: {error.strerror or error}"), "", ""
    except UnusableAudioError as error:
        return Dropped(row.name, str(error)), "", ""
    group = (sentence_key(text, language), *(f"{column}={value}" for column, value in row.groups.items()))
    clip = Clip(row.name, text, seconds, group, recording, row.source, row.start)
    return clip, hashlib.sha256(encoded).hexdigest(), content


def _channel_notes(clips: Sequence[Clip]) -> list[str]:
    """A remark on recordings of several channels; none without any."""
    several = sum(clip.recording.channels > 1 for clip in clips)
    if not several:
        return []
    return [f"{several} clips have several channels, whose average is heard; data.channel takes one of them"]


def _languages(source: Source, usable: Mapping[str, object]) -> tuple[str, ...]:
    counts = Counter(row.language for row in source.rows if row.name in usable and row.language)
    return tuple(language for language, _ in counts.most_common()) or source.card_languages


def _check_dropped(clips: Sequence[Clip], dropped: Sequence[Dropped], config: DataConfig) -> None:
    total = len(clips) + len(dropped)
    if total == 0:
        raise InputError(f"{config.dataset}: holds not one row; give it one for each recording")
    if clips and len(dropped) / total <= config.max_dropped:
        return
    examples = "; ".join(f"{row.name} ({row.reason})" for row in dropped[:3])
    if len(dropped) > 3:
        examples += f"; and {len(dropped) - 3} more"
    fix = "repair them"
    if clips:
        fix += f" or raise data.max_dropped above {config.max_dropped:g}"
    raise InputError(f"{config.dataset}: {len(dropped)} of {total} rows cannot be used: {examples}; {fix}")


def _fingerprint(clips: Sequence[Clip], digests: Mapping[str, str]) -> str:
    sha256 = hashlib.sha256()
    for clip in clips:
        for part in (clip.name, clip.text, digests[clip.name]):
            encoded = part.encode("utf-8", "surrogatepass")
            sha256.update(len(encoded).to_bytes(8, "little") + encoded)
    return sha256.hexdigest()


def sentence_key(text: str, language: str) -> str:
    """The sentence without case, punctuation or spacing: two clips with the same key say the same.

    English goes through the normalizer that WER uses, so `20` and `twenty` have the same key. Apostrophes are
    removed, other marks separate words, and a text that consists of marks only is its own key.
    """
    plain = text.replace("\u2019", "'")
    english = normalizer("en")(plain) if language == "en" else ""
    folded = unicodedata.normalize("NFKC", english or plain).casefold().replace("'", "")
    words = "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in folded)
    return " ".join(words.split()) or folded.strip()
