"""Whose files a study's folder holds: every database has an identity, every study's folder names its owner.

Studies of several databases share a folder (TMSEARCH_STUDIES, or two SQLite files side by side), where a study's files
are found by its name alone. So the folder holds owner.json: the database, the study and when it was made. Whoever
reads, writes or removes a study's files asks here first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.errors import RunError, StorageUnavailableError, UserError
from search.paths import (
    ARTIFACTS,
    DEFAULT_URL,
    links_to_folders,
    locked_folder,
    remove,
    study_folder,
    write_atomically,
    write_if_missing,
)
from search.records import Configuration, StudyRecord
from search.storage import schema
from search.storage.database import Storage
from search.storage.ledger import Ledger

OWNER_FILE = "owner.json"
_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")
_TRIALS_COMPARED = 50  # of a folder without an owner file: enough to tell it from another study's


@dataclass(frozen=True)
class Owner:
    """The study that a folder's files belong to."""

    database: str  # its identity
    study: str
    created: float  # by the database's clock, in seconds since 1970
    storage: str  # where the database was: a SQLite file, or a URL without user and password
    folder: int = 0  # the folder's inode: it differs in a copy


def identity(storage: Storage) -> str | None:
    """The database's UUID; None where a ledger of an older version has none yet and cannot be written to."""
    with storage.read() as connection:
        identifier = _identity(connection)
    if identifier is not None:
        return identifier
    with contextlib.suppress(StorageUnavailableError, UserError), storage.write() as connection:
        schema.set_identity(connection)
        return _identity(connection)
    return None


def _identity(connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == schema.IDENTITY)).scalar()


def check_name(storage: Storage, name: str) -> None:
    """Raise UserError where a study's folder would be one of our own files, or of another database's."""
    own_files = [Path(DEFAULT_URL).name]
    if storage.file is not None:
        own_files.append(storage.file.name)
    reserved = {ARTIFACTS, *(file + suffix for file in own_files for suffix in _SQLITE_SUFFIXES)}
    if name.casefold() in {reserved_name.casefold() for reserved_name in reserved}:
        raise UserError(f"{name}: tmsearch has a file or folder of this name beside its studies; choose another name")
    folder = study_folder(storage.folder, name)
    for suffix in _SQLITE_SUFFIXES:
        file = study_folder(storage.folder, name.removesuffix(suffix))
        if name.endswith(suffix) and file.is_file():
            raise UserError(f"{name}: its folder would collide with the file {file}; choose another name")
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder}: a link to a folder that does not exist; make that folder, or remove the link")


def check_unused(storage: Storage, name: str) -> None:
    """Raise UserError where a new study of this name would find files of another one in its folder."""
    check_name(storage, name)
    folder = study_folder(storage.folder, name)
    if not _is_used(folder):
        return
    owner = read_owner(folder)
    whose = "files of unknown origin" if owner is None else _described(owner)
    raise UserError(f"{folder}: holds {whose}; move or remove the folder, or choose another name with --study NEW")


def checked_folder(ledger: Ledger) -> Path:
    """The study's folder, which need not exist; files that are there belong to this study.

    A folder without an owner file, as older versions made it, is adopted if its trials are those of the ledger.

    Raises:
        UserError: The files belong to another study or database.
    """
    storage = ledger.storage
    check_name(storage, ledger.study)
    folder = study_folder(storage.folder, ledger.study)
    if not _is_used(folder):
        return folder
    record = ledger.record()
    owner = read_owner(folder)
    identifier = identity(storage)
    if owner is None:
        difference = _difference(folder, record, ledger.history())
        if difference:
            raise UserError(
                f"{folder}: holds files of unknown origin, {difference}; move the folder away, or set TMSEARCH_STUDIES "
                "to the right one"
            )
    elif not _is_owner(owner, identifier, storage, record, folder):
        raise UserError(
            f"{folder}: holds {_described(owner)}, not of this study; move the folder away, or set TMSEARCH_STUDIES "
            "to the right one"
        )
    wanted = _owner(identifier, storage, record, folder)
    if wanted is not None and owner != wanted:
        with contextlib.suppress(OSError):  # a folder that is only read
            _write_owner(folder, wanted, replacing=owner is not None)
    return folder


def foreign(ledger: Ledger) -> str | None:
    """Why the files in the study's folder are not the study's; None where they are, or there are none."""
    try:
        checked_folder(ledger)
    except UserError as error:
        return str(error)
    return None


def claimed_folder(ledger: Ledger) -> Path:
    """The study's folder, made with its owner file if it does not exist; raises as `checked_folder` does."""
    folder = checked_folder(ledger)
    if read_owner(folder) is None:
        _make(folder)
        owner = _owner(identity(ledger.storage), ledger.storage, ledger.record(), folder)
        if owner is not None:
            _write_owner(folder, owner)
        checked_folder(ledger)  # another database may have claimed it at the same moment
    return folder


def unique_name(ledger: Ledger) -> str:
    """The study's name with a digest of its owner: a name among those of every database's studies."""
    record = ledger.record()
    digest = hashlib.sha256(json.dumps([identity(ledger.storage), record.name, record.created]).encode())
    return f"{record.name}-{digest.hexdigest()[:12]}"


def read_owner(folder: Path) -> Owner | None:
    """What the folder's owner file says; None where there is none, or it cannot be read as one."""
    try:
        fields = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        return Owner(**fields)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made: {error.strerror}") from None


def _is_used(folder: Path) -> bool:
    """Whether the folder holds anything that a study's file may be; hidden files are none."""
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read: {error.strerror}") from None


def _owner(identifier: str | None, storage: Storage, record: StudyRecord, folder: Path) -> Owner | None:
    """The owner as this database is; None where it has no identity."""
    if identifier is None:
        return None
    return Owner(identifier, record.name, record.created, _location(storage), folder.stat().st_ino)


def _write_owner(folder: Path, owner: Owner, *, replacing: bool = False) -> None:
    write = write_atomically if replacing else write_if_missing
    write(folder / OWNER_FILE, json.dumps(dataclasses.asdict(owner), indent=1).encode() + b"\n")


def _location(storage: Storage) -> str:
    """The database without what a password may hide in."""
    if storage.file is not None:
        return str(storage.file)
    url = storage.url
    return sa.URL.create(url.get_backend_name(), None, None, url.host, url.port, url.database).render_as_string()


def _is_owner(owner: Owner, identifier: str | None, storage: Storage, record: StudyRecord, folder: Path) -> bool:
    is_study = (owner.database, owner.study, owner.created) == (identifier, record.name, record.created)
    return is_study and not _is_copy(owner, storage, folder)


def _is_copy(owner: Owner, storage: Storage, folder: Path) -> bool:
    """Whether this SQLite file is a copy of the one that the folder belongs to: both have one identity."""
    file = Path(owner.storage)
    if storage.file is None or file == storage.file or owner.folder != folder.stat().st_ino:
        return False
    with contextlib.suppress(OSError):
        if file.samefile(storage.file):
            return False
    return any(found == (owner.database, owner.study) for found in _studies_of(file))


def _studies_of(file: Path) -> Iterator[tuple[str, str]]:
    """(identity, study) of another SQLite file's studies; nothing where there is no such file or no ledger in it."""
    if not file.is_file():
        return
    query = "SELECT value, name FROM tmsearch_meta, tmsearch_study WHERE key = ?"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(file)) as connection:
        yield from connection.execute(query, (schema.IDENTITY,)).fetchall()


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)


def _described(owner: Owner) -> str:
    gone = ""
    if "://" not in owner.storage and not Path(owner.storage).is_file():
        gone = ", which is gone"
    return f"files of the study {owner.study} of {owner.storage}{gone}"


def _difference(folder: Path, record: StudyRecord, history: tuple[Configuration, ...]) -> str:
    """Why the folder's files are not those of this study; empty where nothing speaks against it."""
    space = _read_yaml(folder / "space.yaml")
    if space is not None and space != json.loads(json.dumps(dict(record.space))):
        return "whose space.yaml is not the study's space"
    folders = sorted(path for path in (folder / "trials").glob("*") if path.is_dir())
    strange = [path.name for path in folders if not path.name.isdecimal() or int(path.name) >= len(history)]
    if strange:
        return f"with a trial {strange[0]} that the study does not have"
    for path in folders[:: 1 + len(folders) // _TRIALS_COMPARED]:
        if not _has_params(path, record, history[int(path.name)]):
            return f"whose {path.relative_to(folder)}/config.yaml is another recipe than the study's trial"
    return ""


def _has_params(folder: Path, record: StudyRecord, trial: Configuration) -> bool:
    """Whether the saved recipe of a trial, if there is one, has the parameters that the ledger knows."""
    recipe = _read_yaml(folder / "config.yaml")
    if not isinstance(recipe, dict):
        return recipe is None
    sections = [section for section in recipe.values() if isinstance(section, dict)]
    for name, value in {"seed": record.seed, **(trial.params or {})}.items():
        saved = [section[name] for section in sections if name in section]
        if saved and value not in saved:
            return False
    return True


def _read_yaml(file: Path) -> Any:
    """The file's content; None where there is no file, and a word where it cannot be read."""
    import yaml

    try:
        return yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return "unreadable"


def keep_claimed(folder: Path, owner: Owner | None) -> None:
    """Of a study at work whose folder had `owner`: raise RunError where it has another one now.

    A folder that was removed meanwhile is made again, with its owner.
    """
    if owner is None:
        return
    current = read_owner(folder)
    if current is None:
        _make(folder)
        _write_owner(folder, owner)
    elif (current.database, current.study, current.created) != (owner.database, owner.study, owner.created):
        raise RunError(f"{folder}: holds {_described(current)} since this study started; name another TMSEARCH_STUDIES")


def check_removable(ledger: Ledger) -> None:
    """Raise UserError where `remove_files` would leave some of the study's files; removes nothing."""
    folder = checked_folder(ledger)
    locked = locked_folder(folder.resolve())
    if locked is None and folder.is_symlink() and not os.access(folder.parent, os.W_OK | os.X_OK):
        locked = folder.parent
    if locked is not None:
        raise UserError(f"{ledger.study}: nothing was deleted: {locked} cannot be written; make it writable")


def remove_files(ledger: Ledger) -> list[str]:
    """Remove the study's folder, and the folder that it is a link to; returns remarks for a person.

    Raises:
        UserError: The files belong to another study or database.
        RunError: Something could not be removed; the call can be repeated.
    """
    folder = checked_folder(ledger)
    if not folder.exists():
        return []
    remarks = [f"{link} was a link; what it led to was left" for link in links_to_folders(folder)]
    target = folder.resolve()
    problems = []
    for path in target.iterdir():
        if path.name != OWNER_FILE:
            problems += remove(path)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise RunError(f"{ledger.study}: not deleted, its files could not be removed: {problems[0]}{more}")
    (target / OWNER_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder that is mounted is left, empty
        target.rmdir()
    if folder.is_symlink():
        folder.unlink()
    return remarks
