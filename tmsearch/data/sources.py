"""A dataset by its name: the demo, a folder, parquet, save_to_disk or the hub, opened into rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import DataConfig
from tmsearch.data.arrow import is_saved, table_rows
from tmsearch.data.audiofolder import METADATA, folder_rows, visible
from tmsearch.data.columns import Row
from tmsearch.demo.paths import CORPUS
from tmsearch.errors import InputError
from tmsearch.hub import Repository, fetch


@dataclass(frozen=True)
class Source:
    """An opened dataset. The first of `notes` says where it lies; `commit` is the hub's, None for local data."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    commit: str | None = None
    card_languages: tuple[str, ...] = ()


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
    configurations = getattr(info.card_data, "configs", None) or []
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
    if path.is_file() and path.name in METADATA:
        path = path.parent
    rows, notes = _read_rows(path, config, from_hub)
    return Source(tuple(rows), (origin, *notes), card_languages=_card_languages(path))


def _read_rows(path: Path, config: DataConfig, from_hub: bool) -> tuple[Sequence[Row], Sequence[str]]:
    """The rows in whatever format lies at `path`, and remarks."""
    if path.is_file():
        if path.suffix != ".parquet":
            raise InputError(f"{path}: neither parquet nor a folder; give data.dataset a folder with metadata.csv")
        return table_rows(path, config, [path])
    if is_saved(path):
        return table_rows(path, config, [])
    metadata = visible(path, *METADATA)
    if metadata:
        return folder_rows(path, metadata, config)
    parquet = visible(path, "*.parquet")
    if parquet or from_hub:
        return table_rows(path, config, parquet)
    raise InputError(
        f"{path}: holds no metadata.csv, no parquet and no save_to_disk dataset; "
        "give it a metadata.csv with the columns file_name and text"
    )


def _card_languages(folder: Path) -> tuple[str, ...]:
    """The languages in the YAML at the top of a dataset's README.md; empty without one."""
    readme = folder / "README.md"
    if folder.is_file() or not readme.is_file():
        return ()
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---", readme.read_text("utf-8", errors="replace"), re.DOTALL)
    try:
        card = yaml.safe_load(front_matter[1]) if front_matter else None
    except yaml.YAMLError:
        return ()
    languages = card.get("language") if isinstance(card, dict) else None
    if not isinstance(languages, list):
        languages = [languages]
    return tuple(language for language in languages if isinstance(language, str))
