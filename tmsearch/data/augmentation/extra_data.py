"""Speech that is trained on beside a dataset, `data.extra`: which clips of it, and what microphone they are heard by.

Nothing of it may be in the validation or test split: copies of their clips are refused, their sentences left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tmsearch.config import DataConfig, ExtraData
from tmsearch.data import audio_file
from tmsearch.data.audio_file import Samples, UnusableAudioError
from tmsearch.data.augmentation.throat_response import (
    BAND_SHARE,
    LongTermSpectrum,
    ThroatResponse,
    learn,
    long_term_spectrum,
)
from tmsearch.data.corpus import Corpus
from tmsearch.data.sources import open_source
from tmsearch.data.splits import Split
from tmsearch.errors import InputError

# Clips that a long-term spectrum is taken of, the same ones each time: ten minutes of 3 s, where 60 to 90 s of speech
# are usual (Byrne et al. 1994).
MOST_CLIPS = 200

Load = Callable[[DataConfig], Corpus]


@dataclass(frozen=True)
class ExtraCorpus:
    """One entry of `data.extra`: its clips, as they are heard, and those that may be trained on."""

    settings: ExtraData
    corpus: Corpus
    names: tuple[str, ...]
    same_sentences: int  # clips that say what a validation or test clip says, and are left out
    response: ThroatResponse | None = None

    def to_json(self) -> dict[str, Any]:
        """What a plan says of it."""
        seconds = {clip.name: clip.seconds for clip in self.corpus.clips}
        row: dict[str, Any] = {
            "dataset": self.settings.dataset,
            "clips": len(self.names),
            "seconds": sum(seconds[name] for name in self.names),
            "share": self.settings.share,
            "left_out": self.same_sentences,
        }
        if self.response is not None:
            row["gains_db"] = {str(hertz): round(self.response.gain_db(hertz), 1) for hertz in (250, 1000, 2000, 4000)}
        return row


def load_extra(data: DataConfig, corpus: Corpus, split: Split, load: Load) -> tuple[tuple[ExtraCorpus, ...], str]:
    """The entries of `data.extra`, and a sha256 of all that they are made of but the split.

    Args:
        data: The study's, with its own columns.
        corpus: Its clips.
        split: Its split; a throat filter is learnt from the training part alone.
        load: Loads a corpus, perhaps once for several calls.

    Raises:
        InputError: One cannot be read, holds nothing that may be trained on, or cannot be heard as asked.
    """
    throat: LongTermSpectrum | None = None
    extra = []
    parts: list[Any] = [data.air_column, data.air_channel]
    for number, settings in enumerate(data.extra):
        key = f"data.extra[{number}]"
        opened = _opened(data, settings, key, load)
        parts.append([opened.fingerprint, dataclasses.asdict(settings) | {"dataset": "", "revision": ""}])
        response = None
        if settings.throat:
            throat = throat or _spectrum(corpus.decode, split.train, "data.dataset")
            response = _response(data, corpus, split, throat, opened, key)
            opened = _heard_through(opened, response)
        names, same = _allowed(opened, corpus, split)
        if not names:
            raise InputError(f"{key}: {settings.dataset}: all of it says what validation or test clips say")
        extra.append(ExtraCorpus(settings, opened, names, same, response))
    return tuple(extra), hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def refuse_copies(extra: Iterable[ExtraCorpus], corpus: Corpus, split: Split) -> None:
    """Raises InputError where a clip of `extra` is also one of the validation or test split, in whatever format."""
    held_out = {corpus.contents[name]: name for name in (*split.validation, *split.test)}
    for number, entry in enumerate(extra):
        copies = [name for name, content in entry.corpus.contents.items() if content in held_out]
        if copies:
            original = held_out[entry.corpus.contents[copies[0]]]
            raise InputError(
                f"data.extra[{number}]: {entry.settings.dataset}: {len(copies)} of its clips are in validation or "
                f"test, such as {copies[0]} ({original} there); take them out of it"
            )


def dataset(data: DataConfig, settings: ExtraData) -> DataConfig:
    """How an entry is read: by its own columns, in the study's language."""
    return DataConfig(
        dataset=settings.dataset,
        revision=settings.revision,
        language=data.language,
        task=data.task,
        audio_column=settings.audio_column,
        channel=settings.channel,
        text_column=settings.text_column,
        max_dropped=data.max_dropped,
    )


def _opened(data: DataConfig, settings: ExtraData, key: str, load: Load) -> Corpus:
    try:
        return load(dataset(data, settings))
    except InputError as error:
        renamed = re.sub(r"\bdata\.(?=[a-z])", f"{key}.", str(error))
        raise InputError(renamed if renamed.startswith(key) else f"{key}: {renamed}") from None


def _allowed(extra: Corpus, corpus: Corpus, split: Split) -> tuple[tuple[str, ...], int]:
    """The clips whose sentence and sound are in no validation or test clip, and how many others there are."""
    held_out = {*split.validation, *split.test}
    sentences = {clip.group[0] for clip in corpus.clips if clip.name in held_out}
    contents = {corpus.contents.get(name) for name in held_out}
    names = []
    for clip in extra.clips:
        if clip.group[0] not in sentences and extra.contents[clip.name] not in contents:
            names.append(clip.name)
    return tuple(names), len(extra.clips) - len(names)


def _response(
    data: DataConfig, corpus: Corpus, split: Split, throat: LongTermSpectrum, extra: Corpus, key: str
) -> ThroatResponse:
    """The filter for the clips of `extra`: against the other microphone of the same clips, else against themselves."""
    own = _spectrum(extra.decode, [clip.name for clip in extra.clips], key)
    if own.band < throat.band:
        raise InputError(
            f"{key}.throat: {BAND_SHARE:.0%} of the energy of its clips lies below {own.band:.0f} Hz, of the throat "
            f"microphone's below {throat.band:.0f} Hz: no filter adds what they lack; give speech of a microphone in "
            "air, or throat: false"
        )
    if data.air_column is None and data.air_channel is None:
        return learn(throat, own)
    return learn(throat, long_term_spectrum(_other_microphone(data, corpus, split)))


def _other_microphone(data: DataConfig, corpus: Corpus, split: Split) -> Iterator[Samples]:
    """What the microphone in air recorded of the training clips, where that is a column or channel beside theirs."""
    column = data.air_column or data.audio_column
    air = dataclasses.replace(data, audio_column=column, channel=data.air_channel)
    try:
        rows = open_source(air).rows
    except InputError as error:
        raise InputError(str(error).replace("data.audio_column", "data.air_column")) from None
    # Rows are paired by their order: files of two microphones have two names.
    names = [row.name for row in open_source(data).rows]
    wanted = set(_drawn(split.train))
    for name, row in zip(names, rows, strict=True):
        if name not in wanted:
            continue
        try:
            yield audio_file.mono(*audio_file.decode(row.read()))
        except (OSError, UnusableAudioError) as error:
            raise InputError(
                f"data.air_{'channel' if data.air_column is None else 'column'}: {name}: {error}"
            ) from None


def _spectrum(decode: Callable[[str], Samples], names: Sequence[str], key: str) -> LongTermSpectrum:
    try:
        return long_term_spectrum(decode(name) for name in _drawn(names))
    except ValueError as error:
        raise InputError(f"{key}: {error}") from None


def _drawn(names: Sequence[str]) -> list[str]:
    """At most MOST_CLIPS of them, whatever their order."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest())[
        :MOST_CLIPS
    ]


def _heard_through(corpus: Corpus, response: ThroatResponse) -> Corpus:
    """The corpus with every clip passed through the filter as it is decoded."""
    fingerprint = hashlib.sha256(f"{corpus.fingerprint}\0{response.digest}".encode()).hexdigest()
    return dataclasses.replace(corpus, fingerprint=fingerprint, change=response.apply)
