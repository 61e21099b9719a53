"""A dataset by its name: the demo, a folder, parquet, save_to_disk or the hub, opened into rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.data import corpus_layouts
from tmsearch.data.arrow import is_saved, table_rows
from tmsearch.data.audio_file import read_channel
from tmsearch.data.audiofolder import METADATA, TABLE_SUFFIXES, folder_rows, is_metadata, rows_of_tables, visible
from tmsearch.data.columns import Row, Table
from tmsearch.demo.paths import CORPUS
from tmsearch.errors import InputError
from tmsearch.foreign import parsers, plain_files
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.hub import Repository, fetch

_MOST_CARD = 4 * 2**20  # bytes of a README.md


@dataclass(frozen=True)
class Source:
    """An opened dataset. The first of `notes` says where it lies; `commit` is the hub's, None for local data."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    commit: str | None = None
    card_languages: tuple[str, ...] = ()
    audio_columns: tuple[str, ...] = ()  # all that hold audio, the one that is read among them


def open_source(config: DataConfig) -> Source:
    """Finds and opens `config.dataset`; a local folder of that name comes before the hub. Raises InputError."""
    if not config.dataset.strip():
        raise InputError("data.dataset: is empty; give a hub id, a folder, a parquet file or demo")
    path = CORPUS if config.dataset == "demo" else Path(config.dataset).expanduser()
    if _exists(path):
        if config.revision is not None:
            raise InputError(f"data.revision: {config.dataset} is on this machine and has none; leave it out")
        return _open(path, config, f"{config.dataset}, on this machine")
    if _looks_like_a_path(config.dataset):
        raise InputError(f"{config.dataset}: no such file or folder; check data.dataset")
    return _open_from_hub(config)


def _open_from_hub(config: DataConfig) -> Source:
    repository = Repository(
        kind="dataset",
        name=config.dataset,
        revision=config.revision,
        knob="data.dataset",
        revision_knob="data.revision",
        choose_files=_refuse_ambiguous_configurations,
    )
    folder, remark = fetch(repository)
    origin = f"{config.dataset} on the hub, at commit {folder.name[:12]}"
    if config.revision not in (None, folder.name):
        origin += f" ({config.revision})"
    source = _open(folder, config, origin, from_hub=True)
    notes = (*source.notes, remark) if remark else source.notes
    return replace(source, notes=notes, commit=folder.name)


def _refuse_ambiguous_configurations(info: Any) -> None:
    """Raises InputError before the download for several configurations without a default; else takes all files."""
    listed = getattr(info.card_data, "configs", None)
    configurations = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    names = [str(item.get("config_name", "default")) for item in configurations]
    if len(names) > 1 and "default" not in names and not any(item.get("default") for item in configurations):
        raise InputError(
            f"{info.id}: has {len(names)} configurations ({', '.join(names[:8])}) and no default one; load one with "
            "the datasets library, save_to_disk, and give data.dataset that folder"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long for a file
        return False


def _looks_like_a_path(dataset: str) -> bool:
    return dataset == "demo" or dataset.startswith((".", "/", "~")) or dataset.count("/") > 1 or "\\" in dataset


def _open(path: Path, config: DataConfig, origin: str, *, from_hub: bool = False) -> Source:
    if path.is_file() and path.name in METADATA and is_metadata(path):
        path = path.parent
    table = _read_rows(path, config, from_hub)
    rows = table.rows
    if config.channel is not None:
        rows = [replace(row, read=partial(read_channel, row.read, config.channel)) for row in rows]
    return Source(
        tuple(rows),
        (origin, *table.notes),
        card_languages=_card_languages(path),
        audio_columns=table.audio_columns,
    )


def _read_rows(path: Path, config: DataConfig, from_hub: bool) -> Table:
    """The rows in whatever format lies at `path`."""
    # The hub's cache keeps the files themselves beside its snapshots, which are folders of links.
    boundary = path.parents[1] if from_hub else None
    if path.is_file():
        if path.suffix in TABLE_SUFFIXES:
            return folder_rows(path.parent, [path], config, boundary)
        if path.suffix != ".parquet":
            raise InputError(f"{path}: neither parquet nor a folder; give data.dataset a folder with metadata.csv")
        return table_rows(path, config, [path], boundary)
    if not path.is_dir():
        raise InputError(f"{path}: neither a folder nor a plain file; give data.dataset a folder with metadata.csv")
    if is_saved(path):
        return table_rows(path, config, [], boundary)
    metadata = [file for file in visible(path, *METADATA) if is_metadata(file)]
    tables = corpus_layouts.read(path, metadata, config.dataset)
    if tables:
        return rows_of_tables(path, tables, config, boundary)
    if metadata:
        return folder_rows(path, metadata, config, boundary)
    parquet = visible(path, "*.parquet")
    if parquet or from_hub:
        return table_rows(path, config, parquet, boundary)
    raise InputError(
        f"{path}: holds no metadata.csv, no parquet and no save_to_disk dataset, and is not laid out as Common Voice, "
        f"LJSpeech or Kaldi; {_other_tables(path)}give it a metadata.csv with the columns file_name and text"
    )


def _other_tables(path: Path) -> str:
    """What to do about a table of another name in the folder, for an error message; empty without such."""
    tables = [file for file in visible(path, "*.csv", "*.jsonl", "*.json") if file.is_file()]
    if not tables:
        return ""
    return f"if {tables[0].relative_to(path)} lists its clips, give data.dataset that file, or "


def _card_languages(folder: Path) -> tuple[str, ...]:
    """The languages in the YAML at the top of a dataset's README.md; empty without one, or where it cannot be read."""
    readme = folder / "README.md"
    if folder.is_file() or not readme.exists():
        return ()
    try:
        text = plain_files.read_bytes(readme, _MOST_CARD).decode("utf-8-sig", errors="replace")
        front_matter = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        card = parsers.parse_yaml(front_matter[1]) if front_matter else None
    except (ForeignFileError, OSError):
        return ()
    languages = card.get("language") if isinstance(card, dict) else None
    if not isinstance(languages, list):
        languages = [languages]
    return tuple(language for language in languages if isinstance(language, str))
