"""Which columns of a dataset hold audio, text, language and groups, and one row of it, however it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.errors import InputError, TmsearchError

# The first of each is the name that Hugging Face's audiofolder uses; the others occur in datasets on its hub.
AUDIO_NAMES = (
    "audio", "file_name", "file", "filename", "path", "audio_path", "audio_file", "audio_filepath", "wav", "wav_path",
    "speech", "recording",
)  # fmt: skip
TEXT_NAMES = (
    "text", "sentence", "transcription", "transcript", "transcriptions", "transcripts", "raw_text", "normalized_text",
    "normalised_text", "utterance",
)  # fmt: skip
# Datasets of several microphones recorded at once (Vibravox, TAPS) call their columns `audio.MICROPHONE`.
AUDIO_PREFIX = "audio."
LANGUAGE_NAMES = ("language", "lang", "locale")
# Where a row's part of a longer recording starts, ends and how long it is. A duration alone is a remark in most
# datasets, and the part's length in NeMo's manifests, which have a name of their own for the column of audio.
OFFSET_NAME = "offset"
DURATION_NAME = "duration"
_START_NAMES = ("start", "start_time", "segment_start", "begin")
_END_NAMES = ("end", "end_time", "segment_end", "stop")
_NEMO_AUDIO = "audio_filepath"
_KINDS: Mapping[type, str] = {
    bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes",
}  # fmt: skip
GROUP_NAMES = ("speaker", "speaker_id", "session", "session_id", "client_id")


@dataclass(frozen=True)
class Row:
    """One recording of a dataset: `read` returns its encoded bytes; `problem` says why the row cannot be used."""

    name: str
    text: str | None
    read: Callable[[], bytes]
    groups: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    language: str = ""  # as written in its column
    start: float | None = None  # seconds, of the part of a longer recording that it is; its file is `source`
    source: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of an opened dataset, remarks for a person, and its columns that hold audio."""

    rows: list[Row]
    notes: list[str]
    audio_columns: tuple[str, ...] = ()


class AmbiguousColumnsError(InputError):
    """Several columns may hold the audio, or the text, and none is named: `choices`."""

    def __init__(self, message: str, key: str, choices: Sequence[str]) -> None:
        super().__init__(message)
        self.key = key  # audio_column or text_column
        self.choices = tuple(choices)


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read."""

    audio: str
    text: str
    groups: tuple[str, ...]
    language: str | None = None
    segment: tuple[str, ...] = ()  # see `segment_columns`
    microphones: tuple[str, ...] = ()  # all that hold audio

    @property
    def without_audio(self) -> list[str]:
        """All columns that are read but the audio, each once."""
        names = [self.text, *self.groups, self.language, *self.segment]
        return list(dict.fromkeys(name for name in names if name))


def find_columns(where: str, columns: Sequence[str], typed_audio: Sequence[str], config: DataConfig) -> Columns:
    """Finds the columns that hold audio, text and groups: as named in `config`, else by type, else by name.

    Several columns of audio (by type, or called `audio.SOMETHING`) are ambiguous unless one is called `audio`; several
    texts unless one is called `text`.

    Args:
        where: What an error message names: the dataset or its metadata file.
        columns: All columns, in their order.
        typed_audio: Those whose type says that they hold audio.
        config: Columns named by the user come first.

    Raises:
        InputError: A named column does not exist, or audio or text cannot be found; lists the columns.
        AmbiguousColumnsError: Several may hold it; lists them.
    """
    if not columns:
        raise InputError(f"{where}: is empty; give it columns of audio and text, such as file_name and text")
    listing = f"its columns are {', '.join(columns)}"
    for key in ("audio_column", "text_column", "group_column"):
        configured = getattr(config, key)
        if configured is not None and configured not in columns:
            raise InputError(f"{where}: data.{key}: no column {configured}; {listing}")
    by_name = _first_match(columns, AUDIO_NAMES)
    microphones = list(typed_audio)
    if not microphones and by_name is None:
        microphones = [column for column in columns if column.lower().startswith(AUDIO_PREFIX)]
    audio = config.audio_column or _only_or_called(microphones, "audio") or (None if microphones else by_name)
    if audio is None:
        raise _not_found(where, "audio", microphones, listing)
    texts = [column for column in columns if column.lower() in TEXT_NAMES and column != audio]
    text = config.text_column or _only_or_called(texts, "text")
    if text is None:
        raise _not_found(where, "text", texts, listing)
    groups = [column for column in columns if column.lower() in GROUP_NAMES and column != text]
    if config.group_column:
        groups = [config.group_column]
    language = _first_match(columns, LANGUAGE_NAMES)
    all_audio = tuple(microphones) if audio in microphones else (audio, *microphones)
    return Columns(audio, text, tuple(groups), language, segment_columns(columns, audio), all_audio)


def segment_columns(columns: Sequence[str], audio: str) -> tuple[str, ...]:
    """The columns that say which part of its file a row is: start, then end or duration; empty without such.

    The first is empty where a part always starts at the file's start.
    """
    duration = _first_match(columns, (DURATION_NAME,))
    offset = _first_match(columns, (OFFSET_NAME,))
    start = _first_match(columns, _START_NAMES)
    end = _first_match(columns, _END_NAMES)
    if offset:
        return (offset, duration) if duration else (offset,)
    if start and (end or duration):
        return (start, end or duration or "")
    if duration and audio.lower() == _NEMO_AUDIO:
        return ("", duration)
    return ()


def _not_found(where: str, content: str, choices: Sequence[str], listing: str) -> InputError:
    """The error where no column of `content` can be chosen: there is none, or there are several."""
    key = f"{content}_column"
    if not choices:
        return InputError(f"{where}: no column of {content} is known; name one in data.{key}; {listing}")
    several = f"{where}: several columns of {content} ({', '.join(choices)}); name one in data.{key}; {listing}"
    return AmbiguousColumnsError(several, key, choices)


def _only_or_called(candidates: Sequence[str], name: str) -> str | None:
    """The only candidate, or the first that is called `name` in any case."""
    if len(candidates) == 1:
        return candidates[0]
    return next((column for column in candidates if column.lower() == name), None)


def _first_match(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that matches the earliest of `names` in any case."""
    by_lower_name = {column.lower(): column for column in reversed(columns)}
    return next((by_lower_name[name] for name in names if name in by_lower_name), None)


class CellError(TmsearchError):
    """A cell of another type than its column needs; the message is the reason why the row cannot be used."""


def is_missing(cell: object) -> bool:
    """Whether a cell holds nothing: None, or the NaN that pandas writes for it."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def describe_cell(cell: Any) -> str:
    """A cell as an error names it: its type, and its value where that is short."""
    kind = _KINDS.get(type(cell), type(cell).__name__)
    if isinstance(cell, str):
        return repr(cell if len(cell) <= 40 else f"{cell[:40]}...")
    if kind == "a number" and abs(cell) < 1e15:
        return f"{kind} ({cell})"
    return kind


def as_text(cells: Mapping[str, object], column: str) -> str | None:
    """The text in a cell, None where it is missing; raises CellError where it holds anything else."""
    cell = cells.get(column)
    if is_missing(cell):
        return None
    if not isinstance(cell, str):
        raise CellError(f"its {column} is {describe_cell(cell)}, not text")
    return cell


def as_label(cells: Mapping[str, object], column: str) -> str:
    """The name in a cell, a text or number; empty where it is missing. Raises CellError for lists and the like."""
    cell: Any = cells.get(column)
    if is_missing(cell):
        return ""
    if isinstance(cell, list | dict | bytes):
        raise CellError(f"its {column} is {describe_cell(cell)}, not a name or number")
    return str(cell).strip()


def as_groups(cells: Mapping[str, object], columns: Sequence[str]) -> dict[str, str]:
    """The values of the group columns that are not empty."""
    texts = {column: as_label(cells, column) for column in columns}
    return {column: text for column, text in texts.items() if text}
