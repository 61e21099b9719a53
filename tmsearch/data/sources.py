"""A dataset by its name: the demo, a folder, parquet, save_to_disk or the hub, opened into rows."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import DataConfig
from tmsearch.data.arrow import is_saved, table_rows
from tmsearch.data.audiofolder import METADATA, folder_rows, visible
from tmsearch.data.rows import Row, Source
from tmsearch.demo.paths import CORPUS
from tmsearch.errors import InputError
from tmsearch.hub import Repository, fetch

__all__ = ["Row", "Source", "open_source"]


def open_source(config: DataConfig) -> Source:
    """Finds and opens `config.dataset`; a folder here of that name comes before the hub. Raises InputError."""
    if not config.dataset.strip():
        raise InputError("data.dataset: is empty; give a hub id, a folder, a parquet file or demo")
    path = CORPUS if config.dataset == "demo" else Path(config.dataset).expanduser()
    if _exists(path):
        if config.revision is not None:
            raise InputError(f"data.revision: {config.dataset} is on this machine and has none; leave it out")
        return _open(path, config, f"{config.dataset}, on this machine")
    if _looks_like_a_path(config.dataset):
        raise InputError(f"{config.dataset}: no such file or folder; check data.dataset")
    folder, remark = fetch(
        Repository("dataset", config.dataset, config.revision, "data.dataset", "data.revision", _one_configuration)
    )
    asked = f" ({config.revision})" if config.revision not in (None, folder.name) else ""
    source = _open(folder, config, f"{config.dataset} on the hub, at commit {folder.name[:12]}{asked}")
    return dataclasses.replace(source, notes=(*source.notes, *([remark] if remark else [])), commit=folder.name)


def _one_configuration(info: Any) -> None:
    """Several configurations and no default one are an InputError now, not after a download; all files otherwise."""
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
    except OSError:  # too long for a file's name
        return False


def _looks_like_a_path(dataset: str) -> bool:
    return dataset == "demo" or dataset.startswith((".", "/", "~")) or dataset.count("/") > 1 or "\\" in dataset


def _open(path: Path, config: DataConfig, origin: str) -> Source:
    """Rows of whatever lies at `path`."""
    if path.is_file() and path.name in METADATA:
        path = path.parent
    if path.is_file():
        if path.suffix != ".parquet":
            raise InputError(f"{path}: neither parquet nor a folder; give data.dataset a folder with metadata.csv")
        rows, notes = table_rows(path, config, [path])
    elif is_saved(path):
        rows, notes = table_rows(path, config, [])
    elif metadata := visible(path, *METADATA):
        rows, notes = folder_rows(path, metadata, config)
    elif parquet := visible(path, "*.parquet"):
        rows, notes = table_rows(path, config, parquet)
    elif "hub" in origin:
        rows, notes = table_rows(path, config, [])
    else:
        raise InputError(
            f"{path}: holds no metadata.csv, no parquet and no save_to_disk dataset; "
            "give it a metadata.csv with the columns file_name and text"
        )
    return Source(tuple(rows), (origin, *notes), card_languages=_card_languages(path))


def _card_languages(folder: Path) -> tuple[str, ...]:
    """What the YAML at the top of a dataset's README.md says of its languages; nothing where there is none."""
    card = folder / "README.md"
    if folder.is_file() or not card.is_file():
        return ()
    top = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        said = yaml.safe_load(top[1]) if top else None
    except yaml.YAMLError:
        return ()
    found = said.get("language") if isinstance(said, dict) else None
    listed = found if isinstance(found, list) else [found]
    return tuple(one for one in listed if isinstance(one, str))
