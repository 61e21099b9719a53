"""YAML text that nobody vouches for -> plain values, or one line that says where it is wrong.

The YAML read here is the part that a settings file needs: one document of mappings, lists and scalars, without
tags, anchors or repeated keys. Scalars are read by YAML 1.2's core rules, not PyYAML's 1.1: `1e-6` is a number,
and `no`, `010` and `1:30` are not a boolean, an octal number and an angle.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from search.errors import UserError
from search.space.errors import printable, shortened, shown

MOST_BYTES = 256 * 1024  # a space file has some 2 KB
_DEEPEST = 20  # nested lists and mappings; a space file has 3
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"[-+]?[0-9]{1,300}")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)
_PLAIN = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def read(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: the file cannot be read, is too large, is not UTF-8, is not YAML, or holds no mapping.
    """
    source = printable(str(path))
    value = parse(_text(path, source), source)
    if value is None:
        raise UserError(f"{source}: the file is empty; write the space into it")
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else shown(value)
        raise UserError(f"{source}: {what} where a mapping belongs; write lines of the form `key: value`")
    return value


def parse(text: str, source: str) -> Any:
    """The value of one YAML document; None for an empty one. Errors begin with `source`."""
    if "\0" in text:
        raise UserError(f"{source}: not text (it has a zero byte); give a YAML file")
    tab = _TAB_INDENT.search(text)
    if tab:
        raise UserError(f"{source}: line {_line(text, tab.start())}: a tab; indent with spaces")
    try:
        return _Reader(text, source).document()
    except yaml.reader.ReaderError as error:
        found = f"the character U+{int(error.character):04X}" if isinstance(error.character, int) else "a character"
        raise UserError(f"{source}: {found} is not allowed in YAML; give a plain text file") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{source}: {_syntax(error, text)}") from None


def _text(path: str | Path, source: str) -> str:
    try:
        raw = _bytes(path)
    except IsADirectoryError:
        raise UserError(f"{source}: a folder; give the YAML file in it") from None
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise UserError(f"{shortened(source)}: cannot be read ({why}); check the path and its permissions") from None
    if len(raw) > MOST_BYTES:
        raise UserError(f"{source}: larger than {MOST_BYTES // 1024} KB; a space file has a few lines: is it this one?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{source}: not UTF-8 text; give a YAML file saved as UTF-8") from None


def _bytes(path: str | Path) -> bytes:
    """At most MOST_BYTES + 1 bytes of a regular file; O_NONBLOCK, since opening a named pipe waits for its writer."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise OSError(0, "not a regular file")
        return file.read(MOST_BYTES + 1)


def _line(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    unclosed = "flow" in (error.context or "") or "end of stream" in (error.problem or "")
    marks = (error.context_mark, error.problem_mark) if unclosed else (error.problem_mark, error.context_mark)
    mark = marks[0] or marks[1]  # of a bracket or quote without its partner: where it was opened
    where = f"line {mark.line + 1}: " if mark else ""
    if mark and text[mark.index : mark.index + 1] == "\t":
        return f"{where}a tab; use spaces"
    what = "; ".join(part for part in (error.context, error.problem) if part)
    return f"{where}not YAML ({shortened(printable(what), 120)}); check quotes, brackets and indentation"


class _Reader:
    """Builds values from PyYAML's parsing events, so that nothing is resolved or constructed unasked."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._source = source

    def document(self) -> Any:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document (---); keep one a file")
        return value

    def _error(self, event: Any, problem: str) -> UserError:
        return UserError(f"{self._source}: line {event.start_mark.line + 1}: {printable(problem)}")

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            raise self._error(event, f"an alias (*{shown(event.anchor)}); write the value out")
        if event.tag is not None:
            raise self._error(event, f"a YAML tag ({shown(event.tag)}); remove it, plain values need none")
        if depth > _DEEPEST:
            raise self._error(event, f"nested more than {_DEEPEST} deep; a space file needs 3")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value) if event.style is None else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(depth)
        return self._mapping(depth)

    def _list(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
                raise self._error(event, "a key must be a plain word; is a list or a mapping on the wrong line?")
            if event.value in values:
                raise self._error(event, f"{shown(event.value)} is repeated; keep one of the two")
            values[event.value] = self._value(next(self._events), depth + 1)
        return values


def _scalar(text: str) -> Any:
    """An unquoted scalar by YAML 1.2's core schema."""
    if text in _PLAIN:
        return _PLAIN[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    infinite = _INFINITE.fullmatch(text)
    return float(f"{infinite.group(1)}inf") if infinite else text
