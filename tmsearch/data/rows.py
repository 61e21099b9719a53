"""One row of a dataset, whatever it was stored in, and which of its columns are what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tmsearch.config import DataConfig
from tmsearch.errors import InputError

# The first of each is the name that Hugging Face's audiofolder uses; the others are seen in datasets on its hub.
AUDIO_NAMES = (
    "audio", "file_name", "file", "filename", "path", "audio_path", "audio_file", "audio_filepath", "wav", "wav_path",
    "speech", "recording",
)  # fmt: skip
TEXT_NAMES = (
    "text", "sentence", "transcription", "transcript", "transcriptions", "transcripts", "raw_text", "normalized_text",
    "normalised_text", "utterance",
)  # fmt: skip
LANGUAGE_NAMES = ("language", "lang", "locale")
GROUP_NAMES = ("speaker", "speaker_id", "session", "session_id", "client_id")


@dataclass(frozen=True)
class Row:
    """What a dataset says of one recording; `read` gives its encoded bytes, `problem` is why it cannot."""

    name: str
    text: str | None
    read: Callable[[], bytes]
    groups: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    language: str = ""  # as its column has it


@dataclass(frozen=True)
class Source:
    """An opened dataset; the first of `notes` says where it is, `commit` which of the hub's, `card` its languages."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    commit: str | None = None
    card_languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    audio: str
    text: str
    groups: tuple[str, ...]
    language: str | None = None

    @property
    def light(self) -> list[str]:
        """All but the audio, each once."""
        return list(dict.fromkeys((self.text, *self.groups, *([self.language] if self.language else []))))


def find_columns(where: str, columns: Sequence[str], typed_audio: Sequence[str], config: DataConfig) -> Columns:
    """Which columns hold audio, text and groups: as named in `config`, else by type, else by name.

    Several columns typed as audio are ambiguous unless one is called `audio`; several texts unless one is called
    `text`. Raises InputError with the columns that there are.
    """
    has = f"its columns are {', '.join(columns) or 'none'}"
    for key in ("audio_column", "text_column", "group_column"):
        named = getattr(config, key)
        if named is not None and named not in columns:
            raise InputError(f"{where}: data.{key}: no column {named}; {has}")
    audio = config.audio_column or _choose(typed_audio, "audio") or _first(columns, AUDIO_NAMES)
    if audio is None:
        told = f"several columns of audio ({', '.join(typed_audio)})" if typed_audio else "no column of audio is known"
        raise InputError(f"{where}: {told}; name one in data.audio_column; {has}")
    texts = [column for column in columns if column.lower() in TEXT_NAMES and column != audio]
    text = config.text_column or _choose(texts, "text")
    if text is None:
        told = f"several columns of text ({', '.join(texts)})" if texts else "no column of text is known"
        raise InputError(f"{where}: {told}; name one in data.text_column; {has}")
    found = [column for column in columns if column.lower() in GROUP_NAMES and column != text]
    groups = (config.group_column,) if config.group_column else tuple(found)
    return Columns(audio, text, groups, _first(columns, LANGUAGE_NAMES))


def _choose(candidates: Sequence[str], favourite: str) -> str | None:
    if len(candidates) == 1:
        return candidates[0]
    return next((column for column in candidates if column.lower() == favourite), None)


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lowered = {column.lower(): column for column in reversed(columns)}
    return next((lowered[name] for name in names if name in lowered), None)


def as_text(value: object) -> str | None:
    """A cell as text: None for what is missing, a pandas NaN included."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str) else str(value)


def as_groups(cells: Mapping[str, object], columns: Sequence[str]) -> dict[str, str]:
    """The group columns that say something of a row."""
    texts = {column: (as_text(cells.get(column)) or "").strip() for column in columns}
    return {column: text for column, text in texts.items() if text}
