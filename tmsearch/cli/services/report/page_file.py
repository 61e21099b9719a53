"""The file of a page: only a page of tmsearch is overwritten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from search.errors import UserError
from search.storage.database import Storage
from tmsearch.cli.services.report.apart import Call
from tmsearch.cli.services.report.study_report import page_pieces
from tmsearch.cli.view.output_file import write_output


def write_study_page(storage: Storage, name: str, output: str | None, call: Call) -> Path:
    """Write a study's page to `output`, None: STUDY-report.html, and return its path; raises as `write_page` does."""
    file_name = re.sub(r"[^\w.-]", "-", name)
    file = Path(output or f"{file_name}-report.html")
    write_page(file, lambda: page_pieces(storage, name, call))
    return file


def write_page(file: Path, make_page: Callable[[], Iterable[bytes]], option: str = "-o") -> None:
    """Write the page whose pieces `make_page` returns.

    Args:
        file: the file to write.
        make_page: called only if the file may be written.
        option: what an error calls the file by.

    Raises:
        UserError: the file cannot be written, or is something else than a page of tmsearch.
    """
    _check_file(file, option)
    write_output(file, make_page(), option)


def _check_file(file: Path, option: str) -> None:
    """Only a page of tmsearch is overwritten."""
    from tmsearch.report.records import GENERATOR
    from tmsearch.report.sanitize import visible

    shown = visible(file)
    if file.is_dir():
        raise UserError(f"{option} {shown}: is a folder; name a file, such as {shown}/report.html")
    if not file.parent.is_dir():
        raise UserError(f"{option} {shown}: there is no folder {visible(file.parent)}; make it, or name another file")
    if file.exists():
        with file.open("rb") as stream:
            start = stream.read(4000)
        if start.strip() and f'content="{GENERATOR}"'.encode() not in start:
            raise UserError(f"{option} {shown}: exists and is not a page of tmsearch; name another file, or remove it")
