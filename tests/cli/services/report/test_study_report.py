"""A report's memory: what its process imports and holds, and how a long page is written."""

import pytest

from search.records import Configuration
from tests.support.study_builder import Plan, random_study
from tmsearch.cli.services.report import figures, study_report
from tmsearch.cli.services.report.records import StudyFigures


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    plan = Plan(configurations=6, clips=20, validation=4, seconds=0.4)
    return random_study(tmp_path_factory.mktemp("study"), plan).storage


def test_what_a_report_keeps_of_a_study_has_no_errors_by_clip(storage):
    collected = figures.collect(storage, "made")
    assert isinstance(collected, StudyFigures)
    assert isinstance(collected.best, Configuration)
    assert not [rung for rung in collected.best.rungs if "errors" in rung.metrics]
    assert collected.best.metrics["clips"] == 4
    assert any(row.interval for row in collected.page.trials), "which are made of them"


def test_a_page_is_written_in_small_pieces(storage):
    pieces = list(study_report.page_pieces(storage, "made"))
    largest = max(map(len, pieces))
    assert sum(map(len, pieces)) > 5_000_000, "plotly.js alone"
    assert largest < 500_000
