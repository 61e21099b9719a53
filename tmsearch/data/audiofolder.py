"""A folder of audio with metadata.csv or metadata.jsonl, laid out as Hugging Face's audiofolder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.data.rows import Row, as_groups, as_text, find_columns
from tmsearch.errors import InputError

METADATA = ("metadata.csv", "metadata.jsonl")
_AUDIO_ENDINGS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", ".aac", ".wma"}


@dataclass(frozen=True)
class MetadataRow:
    """One line of a metadata file: its number in the file, its cells, and what is wrong with it."""

    number: int
    cells: Mapping[str, Any]
    problem: str = ""


def visible(root: Path, *names: str) -> list[Path]:
    """Files below `root` whose name matches one of the patterns `names`, sorted, nothing hidden among them."""
    found = {path for name in names for path in root.rglob(name)}
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def folder_rows(root: Path, files: Sequence[Path], config: DataConfig) -> tuple[list[Row], list[str]]:
    """The rows of every metadata file, file names relative to the file's own folder, and remarks.

    A row is named by its audio file's path below `root`. Raises InputError for a metadata file that cannot be read.
    """
    rows = [row for file in files for row in _rows(root, file, config)]
    listed = {row.name for row in rows}
    audio = (path for path in visible(root, "*") if path.suffix.lower() in _AUDIO_ENDINGS)
    left = sum(path.relative_to(root).as_posix() not in listed for path in audio)
    notes = [f"{left} audio files have no line in {files[0].name} and are not used"] if left else []
    return rows, notes


def _rows(root: Path, file: Path, config: DataConfig) -> Iterator[Row]:
    shown = _shown(root, file, config)
    header, lines = _jsonl(file, shown) if file.suffix == ".jsonl" else _csv(file, shown)
    columns = find_columns(shown, header, (), config)
    for line in lines:
        cells = line.cells
        file_name = as_text(cells.get(columns.audio))
        if not file_name:
            problem = line.problem or f"no {columns.audio}"
            yield Row(f"{file.relative_to(root).as_posix()}:{line.number}", None, bytes, problem=problem)
            continue
        path = file.parent / file_name
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        groups = as_groups(cells, columns.groups)
        language = as_text(cells.get(columns.language)) if columns.language else None
        yield Row(name, as_text(cells.get(columns.text)), path.read_bytes, groups, line.problem, language or "")


def _shown(root: Path, file: Path, config: DataConfig) -> str:
    """The metadata file as errors name it: by the dataset's name and not by a folder of the hub's cache."""
    return config.dataset if Path(config.dataset).name == file.name else f"{config.dataset}/{file.relative_to(root)}"


def _csv(file: Path, shown: str) -> tuple[list[str], list[MetadataRow]]:
    """Header and lines; a line with more cells than the header has an unquoted comma in its text."""
    text = _read(file, shown)
    lines = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [column.strip() for column in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            odd = "" if len(cells) == len(header) else f"{len(cells)} cells under {len(header)} columns; quote commas"
            lines.append(MetadataRow(reader.line_num, dict(zip(header, cells, strict=False)), odd))
    except csv.Error as error:
        raise InputError(f"{shown}:{reader.line_num}: {error}; quote texts that hold quotes or line ends") from None
    if len(set(header)) < len(header):
        raise InputError(f"{shown}: a column is named twice in {', '.join(header)}")
    return header, lines


def _jsonl(file: Path, shown: str) -> tuple[list[str], list[MetadataRow]]:
    lines = []
    for number, text in enumerate(_read(file, shown).split("\n"), 1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except ValueError as error:
            raise InputError(f"{shown}:{number}: no JSON: {error}") from None
        if not isinstance(cells, dict):
            raise InputError(f'{shown}:{number}: a {type(cells).__name__}; each line must be {{"file_name": ...}}')
        lines.append(MetadataRow(number, cells))
    return _union(line.cells for line in lines), lines


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _read(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{shown}:{line}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}") from None
