"""A folder of audio with metadata.csv or metadata.jsonl, laid out as Hugging Face's audiofolder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.data.columns import Columns, Row, as_groups, as_text, find_columns
from tmsearch.errors import InputError

METADATA = ("metadata.csv", "metadata.jsonl")
_AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", ".aac", ".wma"}


@dataclass(frozen=True)
class MetadataRow:
    """One row of a metadata file: its line number, its cells by column, and what is wrong with it."""

    line: int
    cells: Mapping[str, Any]
    problem: str = ""


def visible(root: Path, *patterns: str) -> list[Path]:
    """Sorted files below `root` whose name matches any of the glob patterns, without hidden files and folders."""
    matches = {path for pattern in patterns for path in root.rglob(pattern)}
    return sorted(path for path in matches if not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def folder_rows(root: Path, files: Sequence[Path], config: DataConfig) -> tuple[list[Row], list[str]]:
    """Reads metadata files whose audio file names are relative to each file's own folder.

    Returns:
        The rows, named by their audio file's path below `root`, and remarks.

    Raises:
        InputError: A metadata file cannot be read or lacks a column.
    """
    rows: list[Row] = []
    for file in files:
        rows += _read_metadata(root, file, config)
    listed = {row.name for row in rows}
    audio_files = [path for path in visible(root, "*") if path.suffix.lower() in _AUDIO_SUFFIXES]
    unlisted = sum(path.relative_to(root).as_posix() not in listed for path in audio_files)
    if not unlisted:
        return rows, []
    return rows, [f"{unlisted} audio files have no line in {files[0].name} and are not used"]


def _read_metadata(root: Path, file: Path, config: DataConfig) -> Iterator[Row]:
    shown = _shown(root, file, config)
    read = _read_jsonl if file.suffix == ".jsonl" else _read_csv
    header, metadata_rows = read(file, shown)
    columns = find_columns(shown, header, (), config)
    for metadata_row in metadata_rows:
        yield _as_row(root, file, metadata_row, columns)


def _as_row(root: Path, file: Path, metadata_row: MetadataRow, columns: Columns) -> Row:
    cells = metadata_row.cells
    file_name = as_text(cells.get(columns.audio))
    if not file_name:
        name = f"{file.relative_to(root).as_posix()}:{metadata_row.line}"
        return Row(name, None, bytes, problem=metadata_row.problem or f"no {columns.audio}")
    path = file.parent / file_name
    shown_path = path.relative_to(root) if path.is_relative_to(root) else path
    language = as_text(cells.get(columns.language)) if columns.language else None
    return Row(
        name=shown_path.as_posix(),
        text=as_text(cells.get(columns.text)),
        read=path.read_bytes,
        groups=as_groups(cells, columns.groups),
        problem=metadata_row.problem,
        language=language or "",
    )


def _shown(root: Path, file: Path, config: DataConfig) -> str:
    """The metadata file as errors name it: by the dataset's name instead of a folder of the hub's cache."""
    return config.dataset if Path(config.dataset).name == file.name else f"{config.dataset}/{file.relative_to(root)}"


def _read_csv(file: Path, shown: str) -> tuple[list[str], list[MetadataRow]]:
    """Header and rows; a row with more cells than the header has an unquoted comma in its text."""
    text = _read_text(file, shown)
    rows = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [column.strip() for column in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            problem = ""
            if len(cells) != len(header):
                problem = f"{len(cells)} cells under {len(header)} columns; quote commas"
            rows.append(MetadataRow(reader.line_num, dict(zip(header, cells, strict=False)), problem))
    except csv.Error as error:
        raise InputError(f"{shown}:{reader.line_num}: {error}; quote texts that hold quotes or line ends") from None
    if len(set(header)) < len(header):
        raise InputError(f"{shown}: a column is named twice in {', '.join(header)}")
    return header, rows


def _read_jsonl(file: Path, shown: str) -> tuple[list[str], list[MetadataRow]]:
    """All keys in the order of their first use, and the rows."""
    rows = []
    keys: dict[str, None] = {}
    for number, line in enumerate(_read_text(file, shown).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise InputError(f"{shown}:{number}: not JSON: {error}") from None
        if not isinstance(cells, dict):
            raise InputError(f'{shown}:{number}: a {type(cells).__name__}; each line must be {{"file_name": ...}}')
        rows.append(MetadataRow(number, cells))
        keys.update(dict.fromkeys(cells))
    return list(keys), rows


def _read_text(file: Path, shown: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{shown}:{line}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}") from None
