"""Rows that the datasets library reads: parquet, save_to_disk, and whatever else a hub repository holds."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tmsearch.config import DataConfig
from tmsearch.data.audio_file import UnusableAudioError, float_wav
from tmsearch.data.audio_paths import AudioPaths
from tmsearch.data.columns import (
    CellError,
    Columns,
    Row,
    Table,
    as_groups,
    as_label,
    as_text,
    describe_cell,
    find_columns,
    is_missing,
)
from tmsearch.data.segments import Segment, read_recording, segment_of
from tmsearch.errors import InputError
from tmsearch.formatting import first_line

_SPLIT = re.compile(r"(train|validation|valid|val|dev|test|eval)(?![A-Za-z])")


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by save_to_disk."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def table_rows(path: Path, config: DataConfig, parquet: Sequence[Path], boundary: Path | None) -> Table:
    """Reads a save_to_disk folder, a parquet file, or a folder that `datasets.load_dataset` understands.

    `boundary` is that of `AudioPaths`.

    A row is named by its audio's file name where all rows have different ones, else by its number; with several
    splits the split's name is put in front.

    Returns:
        The rows of all splits together.

    Raises:
        InputError: The data cannot be read, or lacks a column.
    """
    for file in parquet:
        _check_parquet(file)
    splits = _open(path, config.dataset, parquet)
    root = path.parent if path.is_file() else path
    folders = list(dict.fromkeys([root, *(file.parent for file in parquet)]))
    paths = AudioPaths(root, boundary)
    rows: list[Row] = []
    file_names: list[str] = []
    audio_columns: dict[str, None] = {}
    for split, table in splits.items():
        columns = _columns(table, config)
        audio_columns.update(dict.fromkeys(columns.microphones))
        audio = table.data.column(columns.audio)
        prefix = f"{split}/" if len(splits) > 1 else ""
        for file_name in _file_names(audio):
            file_names.append(f"{prefix}{file_name}" if file_name else "")
        for row in _split_rows(table, columns, audio, partial(_find, paths, folders)):
            rows.append(replace(row, name=f"{prefix}row-{len(rows):06d}"))
    if rows and all(file_names) and max(Counter(file_names).values()) == 1:
        rows = [replace(row, name=name) for row, name in zip(rows, file_names, strict=True)]
    notes = paths.note()
    if len(splits) > 1:
        notes.insert(0, f"its splits {', '.join(splits)} are taken as one")
    return Table(rows, notes, tuple(audio_columns))


def _find(paths: AudioPaths, folders: Sequence[Path], name: str) -> Path:
    """The audio file of this name, below the dataset's folder or else below that of a parquet file."""
    candidates = [paths.find(folder, name) for folder in folders]
    existing = [candidate for candidate in candidates if os.path.lexists(candidate[0])]
    if len(existing) > 1 and existing[0] != candidates[0]:
        raise UnusableAudioError(f"{len(existing)} folders hold a file of its name")
    path, refusal = [*existing, *candidates][0]
    if refusal:
        raise UnusableAudioError(refusal)
    return path


def _split_rows(table: Any, columns: Columns, audio: Any, find: Callable[[str], Path]) -> Iterator[Row]:
    """The rows of one split, not named yet; `find` finds an audio file by its name."""
    values = table.select_columns(columns.without_audio).to_dict()
    for index in range(len(table)):
        cells = {column: values[column][index] for column in values}
        try:
            yield Row(
                name="",
                text=as_text(cells, columns.text),
                read=partial(_read, audio, index, find, segment_of(cells, columns.segment)),
                groups=as_groups(cells, columns.groups),
                language=as_label(cells, columns.language) if columns.language else "",
            )
        except (CellError, UnusableAudioError) as error:
            yield Row("", None, bytes, problem=str(error))


def _check_parquet(file: Path) -> None:
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{file}: not readable as parquet: {first_line(error, 160)}") from None


def _open(path: Path, dataset: str, parquet: Sequence[Path]) -> Mapping[str, Any]:
    """Memory-mapped tables by split. A card that lists configurations says which parquet files are the dataset."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if parquet and not _has_card(path):
            loaded = datasets.load_dataset("parquet", data_files=_by_split(parquet))
        elif is_saved(path):
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(str(path))
    except Exception as error:  # a builder raises whatever its format's library does
        cause = error.__cause__ or error
        raise InputError(f"{dataset}: the datasets library cannot load it: {first_line(cause, 160)}") from None
    return loaded if isinstance(loaded, dict) else {"": loaded}


def _has_card(folder: Path) -> bool:
    """Whether the README starts with YAML; the datasets library warns about one that does not."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    with readme.open("rb") as file:
        return file.read(4) in (b"---\n", b"---\r")


def _by_split(files: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that their names start with, as in train-00000-of-00002.parquet; `train` for all others."""
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        match = _SPLIT.match(file.name)
        split = match[1] if match else "train"
        splits[split].append(glob.escape(str(file)))
    return dict(splits)


def _columns(table: Any, config: DataConfig) -> Columns:
    import datasets

    typed_audio = [name for name, feature in table.features.items() if isinstance(feature, datasets.Audio)]
    return find_columns(config.dataset, list(table.features), typed_audio, config)


def _file_names(audio: Any) -> list[str]:
    """For each cell of an Arrow column, its audio file's name without folders; empty where it has none."""
    import pyarrow
    import pyarrow.compute

    paths = audio
    if pyarrow.types.is_struct(audio.type):
        if audio.type.get_field_index("path") < 0:
            return [""] * len(audio)
        paths = pyarrow.compute.struct_field(audio, "path")
    if not (pyarrow.types.is_string(paths.type) or pyarrow.types.is_large_string(paths.type)):
        return [""] * len(audio)
    return [PurePath(path or "").name for path in paths.to_pylist()]


def _read(audio: Any, index: int, find: Callable[[str], Path], segment: Segment | None) -> bytes:
    """The encoded audio of one cell, or of its part: bytes, a path, or a struct of bytes, path or samples.

    Raises:
        OSError: Its file is missing or cannot be read.
        UnusableAudioError: The cell is no audio, or its file cannot be used.
    """
    cell = audio[index].as_py()
    if is_missing(cell):
        return b""
    if isinstance(cell, str):
        cell = {"path": cell}
    elif isinstance(cell, bytes):
        cell = {"bytes": cell}
    if not isinstance(cell, dict):
        raise UnusableAudioError(f"its audio is {describe_cell(cell)}; it must be a path, bytes or samples with a rate")
    encoded = cell.get("bytes")
    samples = cell.get("array")
    path = cell.get("path")
    if isinstance(encoded, bytes):
        return read_recording(encoded, segment)
    if isinstance(samples, list):
        return read_recording(_as_wav(samples, cell.get("sampling_rate")), segment)
    if path and isinstance(path, str):
        return read_recording(find(path), segment)
    if any(cell.get(key) is not None for key in ("bytes", "array", "path")) or not cell:
        raise UnusableAudioError("its audio is an object whose bytes, array and path are of other types")
    return b""


def _as_wav(array: Sequence[Any], rate: Any) -> bytes:
    """Samples [positions], or [channels, positions] as libraries decode them, as a file."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 1 <= rate < 2**31 or rate != int(rate):
        raise UnusableAudioError(f"its sampling_rate is {describe_cell(rate)}, not a rate in Hz")
    try:
        samples = np.asarray(array, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UnusableAudioError("its array holds something other than numbers") from None
    if samples.ndim not in (1, 2):
        raise UnusableAudioError(f"its array has {samples.ndim} dimensions; samples have one, or two with channels")
    positions = np.atleast_2d(samples).T  # [positions, channels]
    if positions.shape[1] > positions.shape[0]:
        positions = positions.T
    return float_wav(positions, int(rate))
