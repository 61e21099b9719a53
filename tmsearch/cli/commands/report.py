"""The command report: a study as one page to look at and listen to."""

from __future__ import annotations

import argparse
from pathlib import Path

from search import study
from search.exit_codes import DONE
from search.storage.database import open_storage
from tmsearch.cli.services.report.apart import call_apart
from tmsearch.cli.services.report.page_file import write_study_page
from tmsearch.formatting import file_size


def report(arguments: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    storage = open_storage(arguments.storage)
    study.open_study(storage, arguments.study)
    file = write_study_page(storage, arguments.study, arguments.output, call_apart)
    print_written(arguments.output or str(file), file)
    return DONE


def print_written(output: str, file: Path) -> None:
    """Say that a page was written; `output` is the file as a person named it."""
    from tmsearch.report.sanitize import visible

    print(f"{visible(output)}: {file_size(file.stat().st_size)}; open it in any browser")
