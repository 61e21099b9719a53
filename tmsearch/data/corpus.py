"""A dataset as clips: which can be used, what each says, and its samples when asked for."""

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
from tmsearch.data.audio_file import UNHEARD, Recording, Samples, UnusableAudioError, decode, inspect, mono
from tmsearch.data.sources import Row, Source, open_source
from tmsearch.data.text_normalizer import normalizer
from tmsearch.errors import InputError


@dataclass(frozen=True)
class Clip:
    """One utterance: a name that is unique in its corpus, its text as written but for runs of white space, and its
    duration in seconds.

    `group` holds what must not be shared by two splits: the normalised sentence, then `column=value` for each column
    that names a speaker or a session.
    """

    name: str
    text: str
    seconds: float
    group: tuple[str, ...]
    recording: Recording = UNHEARD


@dataclass(frozen=True)
class Dropped:
    """A row of the dataset that is no clip, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Every usable clip of a dataset, by name, and every row left out.

    `fingerprint` is a sha256 over the clips' names, texts and encoded audio; the order of rows does not count.
    `notes` are remarks for a person, one line each; the first says where the clips come from. `commit` is the hub's;
    `languages` are those that the usable rows name in a column, the commonest first, else those of the dataset's card.
    """

    clips: tuple[Clip, ...]
    dropped: tuple[Dropped, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    readers: Mapping[str, Callable[[], bytes]] = field(default_factory=dict, repr=False, compare=False)
    commit: str | None = None
    languages: tuple[str, ...] = ()
    _decoded: dict[str, Samples] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decode(self, name: str) -> Samples:
        """The clip's samples [n], 16 kHz mono, read anew; raises InputError if its file has gone or changed for bad."""
        try:
            return mono(*decode(self.readers[name]()))
        except (OSError, UnusableAudioError) as error:
            raise InputError(f"{name}: readable when the dataset was opened, but no longer: {error}") from None

    def samples(self, name: str) -> Samples:
        """The clip's samples [n], 16 kHz mono, kept in memory from the first call on; not to be written to."""
        if name not in self._decoded:
            samples = self.decode(name)
            samples.flags.writeable = False
            self._decoded[name] = samples
        return self._decoded[name]


def load(config: DataConfig) -> Corpus:
    """Opens the dataset and listens to every row once, keeping no audio in memory.

    Raises InputError when it cannot be reached or read, its columns cannot be told, or more than
    `config.max_dropped` of its rows are unusable.
    """
    source = open_source(config)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        heard = list(pool.map(functools.partial(_hear, language=config.language), source.rows))
    clips, dropped, digests, readers = [], [], {}, {}
    for row, (outcome, digest) in zip(source.rows, heard, strict=True):
        if isinstance(outcome, Clip) and outcome.name in readers:
            outcome = Dropped(outcome.name, "a second row of this name")
        if isinstance(outcome, Dropped):
            dropped.append(outcome)
            continue
        clips.append(outcome)
        digests[outcome.name] = digest
        readers[outcome.name] = row.read
    clips.sort(key=lambda clip: clip.name)
    _check(source, clips, dropped, config)
    said = Counter(row.language for row in source.rows if row.name in readers and row.language)
    languages = tuple(name for name, _ in said.most_common()) or source.card_languages
    return Corpus(
        tuple(clips), tuple(dropped), _fingerprint(clips, digests), source.notes, readers, source.commit, languages
    )


def _hear(row: Row, language: str) -> tuple[Clip | Dropped, str]:
    """A row as a clip or the reason why not, and the sha256 of its encoded audio."""
    if row.problem:
        return Dropped(row.name, row.problem), ""
    text = " ".join((row.text or "").split())
    if not text:
        return Dropped(row.name, "without text"), ""
    try:
        encoded = row.read()
        if not encoded:
            return Dropped(row.name, "empty: not one byte"), ""
        seconds, recording = inspect(encoded)
    except FileNotFoundError:
        return Dropped(row.name, "its audio file is missing"), ""
    except OSError as error:
        return Dropped(row.name, f"unreadable: {error.strerror or error}"), ""
    except UnusableAudioError as error:
        return Dropped(row.name, str(error)), ""
    group = (sentence_key(text, language), *(f"{column}={value}" for column, value in row.groups.items()))
    return Clip(row.name, text, seconds, group, recording), hashlib.sha256(encoded).hexdigest()


def _check(source: Source, clips: Sequence[Clip], dropped: Sequence[Dropped], config: DataConfig) -> None:
    total = len(clips) + len(dropped)
    if total == 0:
        raise InputError(f"{config.dataset}: holds not one row")
    share = len(dropped) / total
    if clips and share <= config.max_dropped:
        return
    few = "; ".join(f"{item.name} ({item.reason})" for item in dropped[:3])
    more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
    fix = f"mend them or raise data.max_dropped above {config.max_dropped:g}" if clips else "mend them"
    raise InputError(f"{config.dataset}: {len(dropped)} of {total} rows cannot be used: {few}{more}; {fix}")


def _fingerprint(clips: Sequence[Clip], digests: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for clip in clips:
        for part in (clip.name, clip.text, digests[clip.name]):
            encoded = part.encode("utf-8", "surrogatepass")
            whole.update(len(encoded).to_bytes(8, "little") + encoded)
    return whole.hexdigest()


def sentence_key(text: str, language: str) -> str:
    """The sentence without case, punctuation or spacing: two clips with one key say the same.

    English goes through the normaliser that WER uses, so `20` and `twenty` are one. Apostrophes vanish, other marks
    part words, and a text of nothing else is its own key.
    """
    plain = text.replace("\u2019", "'")
    english = normalizer("en")(plain) if language == "en" else ""
    folded = unicodedata.normalize("NFKC", english or plain).casefold().replace("'", "")
    kept = "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in folded)
    return " ".join(kept.split()) or folded.strip()
