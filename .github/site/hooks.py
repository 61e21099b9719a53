"""The site's pages: the Markdown that lies beside the code, and references made from the code itself.

Nothing is written twice: a page is a document of the repository under its own path, one of `.github/` under `project/`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import posixpath
import re
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("README.md", ".github", "search", "spaces", "studies", "tests", "tmsearch")
PAGES = ".github/site/pages/"
LEFT_OUT = (".github/PULL_REQUEST_TEMPLATE.md", PAGES)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the repository's documents, what they link to, and the references."""
    pages = {document: _page(document) for document in _documents()}
    linked: set[str] = set()
    for document, page in pages.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        content = LINK.sub(functools.partial(_link, document=document, pages=pages, linked=linked), text)
        files.append(File.generated(config, page, content=content))
    for source in sorted(linked):
        files.append(File.generated(config, _copy(source), abs_src_path=str(ROOT / source)))
    for name, content in {"commands": commands(), "knobs": knobs()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def _documents() -> list[str]:
    """Paths of the documents, relative to the repository."""
    documents = []
    for path in sorted(ROOT.rglob("*.md")):
        name = path.relative_to(ROOT).as_posix()
        if name.split("/")[0] in SHOWN and not name.startswith(LEFT_OUT):
            documents.append(name)
    return documents


def _page(document: str) -> str:
    """The page of a document."""
    if document == "README.md":
        return "index.md"
    return document.replace(".github/site/", "").replace(".github/", "project/")


def _copy(source: str) -> str:
    """Where a file that a document links to lies in the site; code and settings as text that a browser shows."""
    is_text = source.endswith((".py", ".yaml", ".toml"))
    return f"files/{source}.txt" if is_text else f"files/{source}"


def _link(match: re.Match[str], document: str, pages: Mapping[str, str], linked: set[str]) -> str:
    """A link of a document as the site needs it; files are collected in `linked`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(document), match[1]))
    folder = posixpath.dirname(pages[document]) or "."
    page = pages.get(target)
    if page is None and target.startswith(PAGES):  # one that the site has as it is
        page = target.removeprefix(PAGES)
    if page is not None:
        return f"]({posixpath.relpath(page, folder)}{match[2] or ''})"
    if (ROOT / target).is_file():
        linked.add(target)
        return f"]({posixpath.relpath(_copy(target), folder)})"
    return match[0]  # the build says that it leads nowhere


def commands() -> str:
    """Every command with what its --help prints."""
    from tmsearch.cli.parser import COMMANDS, new_parser

    lines = ["# Commands", "", "What `tmsearch COMMAND --help` prints.", ""]
    for name, command in COMMANDS.items():
        lines += [f"## tmsearch {name}", "", f"{command.summary[0].upper()}{command.summary[1:]}.", ""]
        lines += ["```text", _help(new_parser(), name), "```", ""]
    return "\n".join(lines)


def _help(parser: Any, name: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        parser.parse_args([name, "--help"])
    return output.getvalue().rstrip()


def knobs() -> str:
    """Tables of all settings under `data` and `train` of a space file."""
    from tmsearch.config import DataConfig, TrainConfig

    lines = [
        "# Knobs",
        "",
        "Every setting under `data` and `train`; under `search`, those of `train` are searched.",
        "",
    ]
    for title, config in (("data", DataConfig), ("train", TrainConfig)):
        lines += [f"## {title}", "", "| knob | default | values | |", "|---|---|---|---|"]
        for setting in dataclasses.fields(config):
            default = "" if setting.default is dataclasses.MISSING else f"`{setting.default}`"
            fixed = "; one value a study" if setting.metadata.get("fixed_per_study") else ""
            meaning = str(setting.metadata["help"]).replace("|", "\\|")
            lines.append(f"| `{setting.name}` | {default} | {_values(setting.metadata)} | {meaning}{fixed} |")
        lines.append("")
    return "\n".join(lines)


def _values(limits: Mapping[str, Any]) -> str:
    if limits.get("choices"):
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    low, high = limits.get("low"), limits.get("high")
    if low is None and high is None:
        return ""
    return f"{'' if low is None else f'{low:g}'} to {'' if high is None else f'{high:g}'}".strip()
