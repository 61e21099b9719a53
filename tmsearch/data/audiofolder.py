"""A folder of audio with metadata.csv, .jsonl or .parquet, laid out as Hugging Face's audiofolder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.data.audio_file import UnusableAudioError
from tmsearch.data.audio_paths import AudioPaths
from tmsearch.data.columns import CellError, Columns, Row, Table, as_groups, as_label, as_text, find_columns
from tmsearch.data.segments import Segment, read_recording, segment_of
from tmsearch.errors import InputError
from tmsearch.foreign import parsers, plain_files
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.formatting import first_line

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")  # of a table that a person names itself; .json: a manifest of NeMo's
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", ".aac", ".wma"}


@dataclass(frozen=True)
class MetadataRow:
    """One row of a metadata file: its line number, its cells by column, and what is wrong with it."""

    line: int
    cells: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class MetadataTable:
    """What a metadata file holds: its name below the dataset's folder and in errors, and the folder of its files."""

    name: str
    shown: str
    folder: Path  # that file names are relative to
    header: Sequence[str]
    rows: Sequence[MetadataRow]


def visible(root: Path, *patterns: str) -> list[Path]:
    """Sorted files below `root` whose name matches any of the glob patterns, without hidden files and folders."""
    matches = {path for pattern in patterns for path in root.rglob(pattern)}
    return sorted(path for path in matches if not _is_hidden(path.relative_to(root)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def folder_rows(root: Path, files: Sequence[Path], config: DataConfig, boundary: Path | None) -> Table:
    """Reads metadata files whose audio file names are relative to each file's own folder.

    `boundary` is that of `AudioPaths`.

    Returns:
        The rows, named by their audio file's path below `root`.

    Raises:
        InputError: A metadata file cannot be read or lacks a column.
    """
    tables = [_read_metadata(root, file, config) for file in files]
    return rows_of_tables(root, tables, config, boundary)


def rows_of_tables(root: Path, tables: Sequence[MetadataTable], config: DataConfig, boundary: Path | None) -> Table:
    """The rows of tables that are read; see `folder_rows`."""
    paths = AudioPaths(root, boundary)
    rows: list[Row] = []
    segments: list[Segment | None] = []
    audio_columns: dict[str, None] = {}
    for table in tables:
        columns = find_columns(table.shown, list(table.header), (), config)
        audio_columns.update(dict.fromkeys(columns.microphones))
        for metadata_row in table.rows:
            row, segment = _as_row(root, table, metadata_row, columns, paths)
            rows.append(row)
            segments.append(segment)
    listed = {row.name for row in rows}
    is_named_itself = Path(config.dataset).suffix in TABLE_SUFFIXES  # its folder may hold anything
    audio_files = (
        [] if is_named_itself else [path for path in visible(root, "*") if path.suffix.lower() in AUDIO_SUFFIXES]
    )
    unlisted = sum(path.relative_to(root).as_posix() not in listed for path in audio_files)
    notes = paths.note()
    if unlisted:
        notes.append(f"{unlisted} audio files have no line in {Path(tables[0].name).name} and are not used")
    return Table(_parts_named_apart(rows, segments), notes, tuple(audio_columns))


def _as_row(
    root: Path, table: MetadataTable, metadata_row: MetadataRow, columns: Columns, paths: AudioPaths
) -> tuple[Row, Segment | None]:
    """A row, and the part of its file that it is, if it is not the whole."""
    cells = metadata_row.cells
    problem = metadata_row.problem
    segment = None
    name = f"{table.name}:{metadata_row.line}"
    try:
        file_name = as_text(cells, columns.audio)
        if not file_name:
            return Row(name, None, bytes, problem=problem or f"no {columns.audio}"), None
        path, refusal = paths.find(table.folder, file_name)
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        problem = problem or refusal
        segment = segment_of(cells, columns.segment)
        row = Row(
            name=name,
            text=as_text(cells, columns.text),
            read=partial(read_recording, path, segment),
            groups=as_groups(cells, columns.groups),
            problem=problem,
            language=as_label(cells, columns.language) if columns.language else "",
        )
        return row, segment
    except (CellError, UnusableAudioError) as error:
        return Row(name, None, bytes, problem=problem or str(error)), None


def _parts_named_apart(rows: Sequence[Row], segments: Sequence[Segment | None]) -> list[Row]:
    """The rows, with the part in the name of those that share their file with another row."""
    counts = Counter(row.name for row in rows)
    named = []
    for row, segment in zip(rows, segments, strict=True):
        if segment and counts[row.name] > 1:
            row = replace(row, name=row.name + segment.label, start=segment.start, source=row.name)
        named.append(row)
    return named


def _read_metadata(root: Path, file: Path, config: DataConfig) -> MetadataTable:
    shown = _shown(root, file, config)
    try:
        header, rows = _READERS[file.suffix](file)
    except ForeignFileError as error:
        raise InputError(error.at(shown)) from None
    if len(set(header)) < len(header):
        raise InputError(f"{shown}: a column is named twice in {', '.join(header)}")
    return MetadataTable(file.relative_to(root).as_posix(), shown, file.parent, header, rows)


def _shown(root: Path, file: Path, config: DataConfig) -> str:
    """The metadata file as errors name it: by the dataset's name instead of a folder of the hub's cache."""
    return config.dataset if Path(config.dataset).name == file.name else f"{config.dataset}/{file.relative_to(root)}"


def _read_csv(file: Path) -> tuple[list[str], list[MetadataRow]]:
    """Header and rows. A first column without a name is an index, as pandas writes it; others must be empty."""
    header, lines = parsers.read_table(plain_files.read_text(file))
    while header and not header[-1]:
        header.pop()
    rows = []
    for number, cells in lines:
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        unnamed = [cell for column, cell in list(zip(header, cells, strict=False))[1:] if not column and cell.strip()]
        problem = ""
        if len(cells) != len(header):
            problem = f"{len(cells)} cells under {len(header)} columns; quote commas"
        elif unnamed:
            problem = f"a cell under a column without a name ({unnamed[0][:40]}); quote commas"
        rows.append(MetadataRow(number, dict(zip(header, cells, strict=False)), problem))
    return [column for column in header if column], rows


def _read_jsonl(file: Path) -> tuple[list[str], list[MetadataRow]]:
    """All keys in the order of their first use, and the rows."""
    rows = []
    keys: dict[str, None] = {}
    for number, line in enumerate(plain_files.read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = parsers.parse_json(line)
        except ForeignFileError as error:
            raise ForeignFileError(str(error), number) from None
        if not isinstance(cells, dict):
            raise ForeignFileError(f'a {type(cells).__name__}; each line must be {{"file_name": ...}}', number)
        rows.append(MetadataRow(number, cells))
        keys.update(dict.fromkeys(cells))
    return list(keys), rows


def _read_parquet(file: Path) -> tuple[list[str], list[MetadataRow]]:
    import pyarrow.parquet

    try:
        with plain_files.open_plain(file) as stream:
            table = pyarrow.parquet.read_table(stream)
        columns = {}
        for name in table.column_names:
            column = table[name]
            # A date beyond Python's years is no error of a column that nobody reads.
            columns[name] = (column.cast("string") if pyarrow.types.is_temporal(column.type) else column).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise ForeignFileError(f"not readable as parquet: {first_line(error, 160)}") from None
    rows = [
        MetadataRow(number, dict(zip(columns, cells, strict=True)))
        for number, cells in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    return list(columns), rows


def is_metadata(file: Path) -> bool:
    """Whether a file named as metadata lists audio files: a metadata.parquet may as well hold the audio itself."""
    if file.suffix != ".parquet":
        return True
    import pyarrow.parquet

    try:
        types = {field.name: field.type for field in pyarrow.parquet.read_schema(file)}
    except (OSError, pyarrow.ArrowException):
        return False
    is_text = (pyarrow.types.is_string, pyarrow.types.is_large_string)
    return "file_name" in types and any(holds(types["file_name"]) for holds in is_text)


_READERS = {".csv": _read_csv, ".json": _read_jsonl, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
