"""A person's YAML file -> plain values, or one line that says where it is wrong.

PyYAML's safe loader without tags, aliases and repeated keys, and with YAML 1.2's core scalars instead of 1.1's: `1e-6`
is a number; `no` and `1:30` are text; `010` is ten.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from search.errors import UserError
from search.space.errors import kind_of, printable, shortened, shown

MOST_BYTES = 256 * 1024  # a space file has some 2 KB
_DEEPEST = 20  # nested lists and mappings; a space file has 3
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)


class _RefusedError(UserError):
    """Valid YAML that a settings file has no use for."""

    def __init__(self, event: Any, problem: str) -> None:
        super().__init__(f"line {event.start_mark.line + 1}: {printable(problem)}")


class _Loader(yaml.SafeLoader):
    """Safe loader of mappings with text keys, lists and scalars."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._keys: dict[int, set[str]] = {}  # by the id of the mapping's node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        loader: Any = self  # PyYAML's own methods are untyped
        event = loader.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError(event, f"an alias (*{shown(event.anchor)}); write the value out")
        if event.tag is not None:
            raise _RefusedError(event, f"a YAML tag ({shown(event.tag)}); remove it, plain values need none")
        if self._depth > _DEEPEST:
            raise _RefusedError(event, f"nested more than {_DEEPEST} deep; a space file needs 3")
        if isinstance(parent, yaml.MappingNode) and index is None:
            self._check_key(event, self._keys.setdefault(id(parent), set()))
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _check_key(self, event: Any, keys: set[str]) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise _RefusedError(event, "a key must be a plain word; is a list or a mapping on the wrong line?")
        if event.value in keys:
            raise _RefusedError(event, f"{shown(event.value)} is repeated; keep one of the two")
        keys.add(event.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.yaml_implicit_resolvers = {
    None: [
        ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)\Z")),
        ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")),
        ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]{1,300}\Z")),
        ("tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")),
        ("tag:yaml.org,2002:float", re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")),
    ]
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


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
        raise UserError(f"{source}: {kind_of(value)} where a mapping belongs; write lines of the form `key: value`")
    return value


def parse(text: str, source: str) -> Any:
    """The value of one YAML document; None for an empty one. Errors start with `source`."""
    if "\0" in text:
        raise UserError(f"{source}: not text (it has a zero byte); give a YAML file")
    tab = _TAB_INDENT.search(text)
    if tab:
        line = text.count("\n", 0, tab.start()) + 1
        raise UserError(f"{source}: line {line}: a tab; indent with spaces")
    try:
        loader: Any = _Loader(text)
        value = loader.get_data()
        if loader.check_data():
            raise _RefusedError(loader.peek_event(), "a second document (---); keep one a file")
        return value
    except yaml.reader.ReaderError as error:
        what = f"the character U+{int(error.character):04X}" if isinstance(error.character, int) else "a character"
        raise UserError(f"{source}: {what} is not allowed in YAML; give a plain text file") from None
    except _RefusedError as error:
        raise UserError(f"{source}: {error}") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{source}: {_syntax(error, text)}") from None


def _text(path: str | Path, source: str) -> str:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{source}: a folder; give the YAML file in it")
        if not stat.S_ISREG(mode):  # reading a pipe or a device might never end
            raise OSError(0, "not a regular file")
        with open(path, "rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{source}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise UserError(f"{shortened(source)}: cannot be read ({why}); check the path and its permissions") from None
    if len(raw) > MOST_BYTES:
        raise UserError(f"{source}: larger than {MOST_BYTES // 1024} KB; a space file has a few lines: is it this one?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{source}: not UTF-8 text; give a YAML file saved as UTF-8") from None


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    unclosed = "flow" in (error.context or "") or "end of stream" in (error.problem or "")
    mark = error.problem_mark or error.context_mark
    if unclosed and error.context_mark:
        mark = error.context_mark  # where the bracket or quote without its partner was opened
    where = f"line {mark.line + 1}: " if mark else ""
    if mark and text[mark.index : mark.index + 1] == "\t":
        return f"{where}a tab; use spaces"
    what = "; ".join(filter(None, (error.context, error.problem)))
    return f"{where}not YAML ({shortened(printable(what), 120)}); check quotes, brackets and indentation"
