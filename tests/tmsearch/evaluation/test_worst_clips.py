"""The table of the worst clips: order, length, escapes."""

import csv

from tmsearch.evaluation.scores import ClipScore
from tmsearch.evaluation.worst_clips import csv_table, markdown_table

SCORES = [
    ClipScore("good", "a b", "a b", 0, 0, 0, 2),
    ClipScore("bad", "=a | b", "<c>", 1, 1, 0, 2),
    ClipScore("middle", "a b", "a c", 1, 0, 0, 2),
]


def test_markdown_has_the_worst_first_and_no_marks_of_its_texts():
    assert markdown_table(SCORES, 2).splitlines() == [
        "| clip | errors | words | reference | hypothesis |",
        "| --- | --- | --- | --- | --- |",
        "| bad | 2 | 2 | =a &#124; b | &#60;c&#62; |",
        "| middle | 1 | 2 | a b | a c |",
    ]


def test_csv_holds_no_formula():
    rows = list(csv.DictReader(csv_table(SCORES, 20).splitlines()))
    assert [row["clip"] for row in rows] == ["bad", "middle", "good"]
    assert rows[0]["reference"] == "'=a | b"
