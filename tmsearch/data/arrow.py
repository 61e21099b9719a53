"""Rows that the datasets library reads: parquet, save_to_disk, and whatever else a hub repository holds."""

from __future__ import annotations

import glob
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import soundfile

from tmsearch.config import DataConfig
from tmsearch.data.columns import Columns, Row, as_groups, as_text, find_columns
from tmsearch.errors import InputError
from tmsearch.formatting import first_line

_SPLIT = re.compile(r"(train|validation|valid|val|dev|test|eval)(?![A-Za-z])")


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by save_to_disk."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def table_rows(path: Path, config: DataConfig, parquet: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """Reads a save_to_disk folder, a parquet file, or a folder that `datasets.load_dataset` understands.

    A row is named by its audio's file name where all rows have different ones, else by its number; with several
    splits the split's name is put in front.

    Returns:
        The rows of all splits together, and remarks.

    Raises:
        InputError: The data cannot be read, or lacks a column.
    """
    for file in parquet:
        _check_parquet(file)
    splits = _open(path, config.dataset, parquet)
    root = path.parent if path.is_file() else path
    rows: list[Row] = []
    file_names: list[str] = []
    for split, table in splits.items():
        columns = _columns(table, config)
        audio = table.data.column(columns.audio)
        prefix = f"{split}/" if len(splits) > 1 else ""
        for file_name in _file_names(audio):
            file_names.append(f"{prefix}{file_name}" if file_name else "")
        for row in _split_rows(table, columns, audio, root):
            rows.append(replace(row, name=f"{prefix}row-{len(rows):06d}"))
    if rows and all(file_names) and max(Counter(file_names).values()) == 1:
        rows = [replace(row, name=name) for row, name in zip(rows, file_names, strict=True)]
    if len(splits) <= 1:
        return rows, []
    return rows, [f"its splits {', '.join(splits)} are taken as one"]


def _split_rows(table: Any, columns: Columns, audio: Any, root: Path) -> Iterator[Row]:
    """The rows of one split, not named yet."""
    values = table.select_columns(columns.without_audio).to_dict()
    for index in range(len(table)):
        cells = {column: values[column][index] for column in values}
        language = as_text(cells[columns.language]) if columns.language else None
        yield Row(
            name="",
            text=as_text(cells[columns.text]),
            read=partial(_read, audio, index, root),
            groups=as_groups(cells, columns.groups),
            language=language or "",
        )


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
    return readme.is_file() and readme.read_bytes()[:4] in (b"---\n", b"---\r")


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


def _read(audio: Any, index: int, root: Path) -> bytes:
    """The encoded bytes of one cell: bytes, a path (relative to `root`), or a struct of bytes, path or samples."""
    cell = audio[index].as_py()
    if isinstance(cell, str):
        cell = {"path": cell}
    elif not isinstance(cell, dict):
        cell = {"bytes": cell}
    if cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    if cell.get("array") is not None:
        return _as_wav(cell["array"], int(cell["sampling_rate"]))
    if cell.get("path"):
        return (root / str(cell["path"])).read_bytes()
    return b""


def _as_wav(array: Sequence[float], rate: int) -> bytes:
    wav = io.BytesIO()
    soundfile.write(wav, np.asarray(array, dtype=np.float32), rate, format="WAV", subtype="FLOAT")
    return wav.getvalue()
