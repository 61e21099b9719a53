"""The clips with the most word errors as one table, in Markdown or in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from tmsearch.evaluation.scores import ClipScore, worst_first
from tmsearch.formatting import csv_cell, markdown

_HEAD = ["clip", "errors", "words", "reference", "hypothesis"]


def markdown_table(scores: Sequence[ClipScore], most: int) -> str:
    """At most `most` clips, the worst first, with every text escaped."""
    rows = [_HEAD, ["---"] * len(_HEAD), *_rows(scores, most, markdown)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def csv_table(scores: Sequence[ClipScore], most: int) -> str:
    """At most `most` clips, the worst first, in cells that no spreadsheet takes for formulas."""
    stream = io.StringIO()
    csv.writer(stream).writerows([_HEAD, *_rows(scores, most, csv_cell)])
    return stream.getvalue()


def _rows(scores: Sequence[ClipScore], most: int, escape: Callable[[str], str]) -> list[list[str]]:
    rows = []
    for score in worst_first(scores)[:most]:
        texts = [escape(score.reference), escape(score.hypothesis)]
        rows.append([escape(score.name), str(score.edits), str(score.words), *texts])
    return rows
