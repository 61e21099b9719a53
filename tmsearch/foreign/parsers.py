"""JSON, YAML and CSV texts from elsewhere -> values of limited depth and size, or a `ForeignFileError`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import yaml

from tmsearch.foreign.plain_files import ForeignFileError

_DEEPEST = 100  # lists and mappings inside each other; logs and cards have fewer than ten
_LONGEST_NUMBER = 300  # digits: beyond them no number fits a float
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


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
