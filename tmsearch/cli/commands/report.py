"""The command report: a study as one page to look at and listen to."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from search import study
from search.errors import UserError
from search.exit_codes import DONE
from search.storage.database import open_storage
from tmsearch.cli.services.report.apart import call_apart
from tmsearch.cli.services.report.study_report import page_pieces
from tmsearch.cli.view.output_file import write_output
from tmsearch.formatting import file_size


def report(arguments: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    storage = open_storage(arguments.storage)
    study.open_study(storage, arguments.study)
    file_name = re.sub(r"[^\w.-]", "-", arguments.study)
    output = arguments.output or f"{file_name}-report.html"
    write_page(output, lambda: page_pieces(storage, arguments.study, call_apart))
    return DONE


def write_page(output: str, make_page: Callable[[], Iterable[bytes]], option: str = "-o") -> None:
    """Write the page whose pieces `make_page` returns, and print its size.

    Args:
        output: the file to write.
        make_page: called only if the file may be written.
        option: what an error calls the file by.

    Raises:
        UserError: the file cannot be written, or is something else than a page of tmsearch.
    """
    from tmsearch.report.sanitize import visible

    file = Path(output)
    _check_file(file, option)
    write_output(file, make_page(), option)
    print(f"{visible(output)}: {file_size(file.stat().st_size)}; open it in any browser")


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
