"""What comes from elsewhere (datasets, cards, logs), read within bounds: plain files, limited sizes, limited depth.

Every fault is one line: a `ForeignFileError` whose message is the reason, to be put behind the name of the file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from tmsearch.errors import TmsearchError

MOST_TEXT = 256 * 2**20  # bytes of a table or log; one of a million clips has about 200 MB
_DEEPEST = 100  # lists and mappings inside each other; logs and cards have fewer than ten
_LONGEST_NUMBER = 300  # digits: beyond them no number fits a float
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class ForeignFileError(TmsearchError):
    """A file from elsewhere that cannot be used; the message is the reason, without the file's name or the line."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line

    def at(self, name: str) -> str:
        """The error in one line, behind the file's name and, where it is known, the line's number."""
        return f"{name}: {self}" if self.line is None else f"{name}:{self.line}: {self}"


def open_plain(path: Path) -> BinaryIO:
    """Opens a plain file; a pipe or device is refused instead of being waited for or read without end.

    Raises:
        ForeignFileError: It is not a plain file, or the path cannot be a file's.
        OSError: It is missing or cannot be opened.
    """
    try:
        # A pipe without a writer blocks in open() unless it is asked not to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError:
        raise ForeignFileError("its path holds a zero byte") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise ForeignFileError(f"{_kind(status.st_mode)}, not a plain file")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The content of a plain file of at most `most_bytes`; its size is looked at before anything is read.

    Raises:
        ForeignFileError: It is not a plain file, or is larger.
        OSError: It is missing or cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ForeignFileError(f"too large: {size / 1e6:.0f} MB, at most {most_bytes / 1e6:.0f} MB are read")
        # Not more than was there a moment ago: files such as those of /proc say 0 and may have no end.
        return file.read(size)


def read_text(path: Path, most_bytes: int = MOST_TEXT) -> str:
    """The text of a plain file in UTF-8, without a byte order mark. Raises ForeignFileError for any fault."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ForeignFileError("not UTF-8; save it as UTF-8", line) from None
    except OSError as error:
        raise ForeignFileError(f"cannot be read: {error.strerror or error}") from None


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ForeignFileError where it is none, too deep, or has an endless integer."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ForeignFileError("not read: lists or objects hundreds deep; no table or log has such") from None
    except ValueError as error:
        raise ForeignFileError(f"not JSON: {error}") from None


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ForeignFileError(f"an integer of {len(digits)} digits; quote it if it is text")
    return int(digits)


_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BaseLoader):  # type: ignore[misc]
    """PyYAML's safe loader; a date, integer or float that is none (2024-99-99, 5,000 digits) stays text."""

    def construct_number_or_date(self, node: yaml.ScalarNode) -> Any:
        constructor = _BaseLoader.yaml_constructors[node.tag]
        if len(node.value) > _LONGEST_NUMBER:
            return node.value
        try:
            return constructor(self, node)
        except (ValueError, OverflowError):
            return node.value


for _kind_of_scalar in ("int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind_of_scalar}", _Loader.construct_number_or_date)
# Merge keys (<<) multiply what they name: a few lines of them fill any memory.
_Loader.yaml_implicit_resolvers = {
    first: resolvers for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items() if first != "<"
}


def parse_yaml(text: str) -> Any:
    """The value of a YAML document. Raises ForeignFileError where it is none, or nested too deep."""
    depth = 0
    try:
        # By events first: composing a tree recurses, in C without a guard.
        for event in yaml.parse(text, Loader=_BaseLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    raise ForeignFileError(f"not read: more than {_DEEPEST} lists or mappings inside each other")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ForeignFileError(f"not YAML: {' '.join(str(error).split())[:160]}") from None


def read_table(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV text, stripped, and its rows with the number of the line that each ends on.

    Rows without any content, such as those that a spreadsheet leaves at the end, are skipped.

    Raises:
        ForeignFileError: The text is not CSV (while iterating, too), or has another separator.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [column.strip() for column in next(_rows(reader), (0, []))[1]]
    if len(header) == 1:
        for separator, name in _SEPARATORS.items():
            if separator in header[0]:
                columns = header[0].replace("\t", " ")[:80]
                raise ForeignFileError(f"separated by {name}: its columns are {columns}; save it with commas")
    return header, _rows(reader)


def _rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ForeignFileError(f"{error}; quote texts that hold quotes or line ends", reader.line_num) from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"
