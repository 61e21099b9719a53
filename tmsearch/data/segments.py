"""Rows that are a part of a longer recording, as manifests (NeMo's, Kaldi's segments) have them: the part is cut out.

Times are in seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tmsearch.data import audio_file
from tmsearch.data.audio_file import MAX_SECONDS, UnusableAudioError
from tmsearch.data.columns import DURATION_NAME, OFFSET_NAME, describe_cell
from tmsearch.foreign import plain_files
from tmsearch.foreign.plain_files import ForeignFileError

if TYPE_CHECKING:
    import soundfile

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)\Z")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_EPOCH = 1e8  # seconds, three years: a larger number is a date, counted from 1970
_ROUNDING = 0.05  # seconds that a row may differ from its whole file
_TOO_LONG = 0.5  # seconds that a row may claim beyond the file's end


@dataclass(frozen=True)
class Segment:
    """A part of a recording; without an end, all from its start."""

    start: float
    end: float | None = None

    @property
    def label(self) -> str:
        """Tells the part from others of its file, in a clip's name."""
        return f"@{self.start:g}-{'' if self.end is None else format(self.end, 'g')}"

    def within(self, total: float) -> tuple[float, float] | None:
        """Start and end in a recording of `total` seconds; None where the recording is the part.

        Raises:
            UnusableAudioError: The recording does not hold the part, or the part is longer than MAX_SECONDS.
        """
        end = total if self.end is None else self.end
        is_cut_already = self.end is not None and abs(end - self.start - total) <= _ROUNDING
        if is_cut_already or (self.start == 0 and total - _ROUNDING <= end <= total + _TOO_LONG):
            return None
        if end > total + _TOO_LONG or self.start >= total:
            raise UnusableAudioError(f"its row ends at {max(end, self.start):.1f} s, its file at {total:.1f} s")
        end = min(end, total)
        if end - self.start > MAX_SECONDS:
            raise UnusableAudioError(f"longer than {MAX_SECONDS:g} s: {end - self.start:.1f} s")
        return self.start, end


def segment_of(cells: Mapping[str, object], columns: Sequence[str]) -> Segment | None:
    """The part that a row names in `columns` of `columns.segment_columns`; None for the whole file.

    Raises:
        UnusableAudioError: A value is no time.
    """
    if not columns or all(cells.get(column) in (None, "") for column in columns):
        return None
    start_column = columns[0]
    start = _seconds(cells, start_column) if start_column else 0.0
    last = _seconds(cells, columns[1]) if len(columns) > 1 else None
    if start is None:
        start = 0.0
    if last is None:
        return Segment(start) if start else None
    is_duration = columns[1].lower() == DURATION_NAME
    end = start + last if is_duration else last
    if end <= start:
        raise UnusableAudioError(f"its part of the recording ends at {end:g} s, before it starts at {start:g} s")
    return Segment(start, end)


def _seconds(cells: Mapping[str, object], column: str) -> float | None:
    """A cell as seconds; None where it is empty, or a date: when a recording was made says nothing of its parts."""
    cell = cells.get(column)
    if cell is None or cell == "" or isinstance(cell, datetime.date | datetime.time):
        return None
    if isinstance(cell, str):
        clock = _CLOCK.match(cell.strip())
        if clock:
            return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
        if _DATE.match(cell.strip()):
            return None
    try:
        seconds = float(cell) if isinstance(cell, int | float | str) and not isinstance(cell, bool) else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if math.isnan(seconds):  # pandas' empty cell
        return None
    if seconds > _EPOCH and column.lower() not in (OFFSET_NAME, DURATION_NAME):
        return None
    if not 0 <= seconds < _EPOCH:
        raise UnusableAudioError(f"its {column} is {describe_cell(cell)}, not seconds")
    return seconds


def read_recording(source: Path | bytes, segment: Segment | None) -> bytes:
    """The encoded audio of a row: the file as it is, or its part as a WAV of its own.

    Raises:
        OSError: The file is missing or cannot be read.
        UnusableAudioError: It is no plain file, is too large, or does not hold the part.
    """
    if segment is not None:
        with _opened(source) as stream, audio_file.open_sound(stream) as file:
            bounds = segment.within(file.frames / file.samplerate)
            if bounds is not None:
                return _part(file, *bounds)
    return source if isinstance(source, bytes) else audio_file.read_file(source)


def _part(file: soundfile.SoundFile, start: float, end: float) -> bytes:
    """Samples from `start` to `end` as a WAV of its own."""
    import soundfile

    first = round(start * file.samplerate)
    try:
        file.seek(first)
        samples = file.read(round(end * file.samplerate) - first, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UnusableAudioError(f"unreadable: {error.error_string}") from None
    return audio_file.float_wav(samples, file.samplerate)


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        stream = plain_files.open_plain(source)
    except ForeignFileError as error:
        raise UnusableAudioError(str(error)) from None
    with stream:
        yield stream
