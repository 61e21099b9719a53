"""The table of a long study reads each result once, and the errors by clip of those alone whose intervals it shows."""

from search import study
from search.storage.reader import StoredMetrics
from tests.support.large_study import RUNGS, LargePlan, large_study
from tmsearch.cli.view.status_page import page_lines
from tmsearch.cli.view.table import MOST_INTERVALS


def test_a_page_parses_each_result_once_and_few_errors_by_clip(tmp_path, monkeypatch):
    configurations = MOST_INTERVALS + 20
    ledger = large_study(tmp_path, LargePlan(configurations, clips=3, waiting=0))
    parsed = []
    read = []
    parse = StoredMetrics._parse
    get = StoredMetrics.__getitem__
    monkeypatch.setattr(StoredMetrics, "_parse", lambda self: (parsed.append(1), parse(self))[1])
    monkeypatch.setattr(StoredMetrics, "__getitem__", lambda self, key: (read.append(key), get(self, key))[1])
    summary = study.summarize(study.open_study(ledger.storage, ledger.study))
    lines = page_lines(summary, 100)
    assert len(lines) > configurations
    assert len(parsed) == configurations * len(RUNGS)
    assert read.count("errors") == MOST_INTERVALS
    # Costs are added up for the table, the total, what was saved and what is left; four rates stand beside the best.
    assert len(read) < 8 * len(parsed)
