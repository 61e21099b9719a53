"""Rows kept by the datasets library: parquet, save_to_disk, and whatever else a hub repository holds."""

from __future__ import annotations

import dataclasses
import glob
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import soundfile

from tmsearch.config import DataConfig
from tmsearch.data.rows import Columns, Row, as_groups, as_text, find_columns
from tmsearch.errors import InputError
from tmsearch.formatting import first_line

_SPLIT = re.compile(r"(train|validation|valid|val|dev|test|eval)(?![A-Za-z])")


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by save_to_disk."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def table_rows(path: Path, config: DataConfig, parquet: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """The rows of a save_to_disk folder, a parquet file, or a folder that `datasets.load_dataset` understands.

    All splits are one to us. A row is named by its audio's file name where every row has one of its own, else by its
    number; where there are several splits, theirs comes first. Raises InputError.
    """
    for file in parquet:
        _check_parquet(file)
    splits = _open(path, config.dataset, parquet)
    root = path.parent if path.is_file() else path
    several = len(splits) > 1
    rows: list[Row] = []
    named: list[str] = []
    for split, table in splits.items():
        columns = _columns(table, config)
        audio = table.data.column(columns.audio)
        prefix = f"{split}/" if several else ""
        named += [f"{prefix}{file_name}" if file_name else "" for file_name in _file_names(audio)]
        cells = table.select_columns(columns.light).to_dict()
        for index in range(len(table)):
            line = {column: values[index] for column, values in cells.items()}
            name = f"{prefix}row-{len(rows):06d}"
            read = partial(_read, audio, index, root)
            language = as_text(line[columns.language]) if columns.language else None
            groups = as_groups(line, columns.groups)
            rows.append(Row(name, as_text(line[columns.text]), read, groups, language=language or ""))
    if rows and all(named) and max(Counter(named).values()) == 1:
        rows = [dataclasses.replace(row, name=name) for row, name in zip(rows, named, strict=True)]
    return rows, [f"its splits {', '.join(splits)} are taken as one"] if several else []


def _check_parquet(file: Path) -> None:
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_metadata(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{file}: no parquet that can be read: {first_line(error, 160)}") from None


def _open(path: Path, dataset: str, parquet: Sequence[Path]) -> Mapping[str, Any]:
    """Splits by name, memory-mapped; a card that lists configurations says which parquet files are the dataset."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if parquet and not _has_card(path):
            loaded = datasets.load_dataset("parquet", data_files=_by_split(parquet))
        else:
            loaded = datasets.load_from_disk(str(path)) if is_saved(path) else datasets.load_dataset(str(path))
    except Exception as error:  # a builder raises whatever its format's library does
        cause = error.__cause__ or error
        raise InputError(f"{dataset}: the datasets library cannot load it: {first_line(cause, 160)}") from None
    return loaded if isinstance(loaded, dict) else {"": loaded}


def _has_card(folder: Path) -> bool:
    """Whether the README starts with YAML; the datasets library warns of one that does not."""
    card = folder / "README.md"
    return card.is_file() and card.read_bytes()[:4] in (b"---\n", b"---\r")


def _by_split(files: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that their names start with, as in train-00000-of-00002.parquet; `train` for the others."""
    splits: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        match = _SPLIT.match(file.name)
        splits[match[1] if match else "train"].append(glob.escape(str(file)))
    return dict(splits)


def _columns(table: Any, config: DataConfig) -> Columns:
    import datasets

    typed = [name for name, feature in table.features.items() if isinstance(feature, datasets.Audio)]
    return find_columns(config.dataset, list(table.features), typed, config)


def _file_names(audio: Any) -> list[str]:
    """The name that each cell of an Arrow column has for its audio, without folders; empty where it has none."""
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
    if not isinstance(cell, dict):
        cell = {"path": cell} if isinstance(cell, str) else {"bytes": cell}
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
