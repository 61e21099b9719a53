"""Axes and texts of the charts."""

from tmsearch.report import charts
from tmsearch.report.records import TrialRow


def test_one_that_diverged_does_not_flatten_the_rest():
    assert charts.wer_range([0.3] * 99 + [50.0], ())["range"][1] < 1
    assert charts.wer_range([0.3, 0.4, 0.5], ())["range"][1] > 0.5


def test_hovering_shows_text():
    line = TrialRow(1, "pruned", {"model": "<b>x</b>"}, "", ((1, 0.5),), 1.0)
    assert "&lt;b&gt;x" in charts.hover_text(line, 1, 0.5)
