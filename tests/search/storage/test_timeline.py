"""Results come in the order in which they were recorded, with what the study had cost by then."""

import pytest

from search.storage import timeline
from tests.support.toy_study import toy_space, toy_storage, toy_study, work


def test_results_in_the_order_they_came(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 3)
    work(ledger, toy_space(tmp_path), tmp_path / "toy")
    results = timeline.recorded_results(ledger)
    assert sorted((result.number, result.step) for result in results) == sorted(
        (trial.number, rung.step) for trial in ledger.history() for rung in trial.rungs
    )
    assert [result.committed for result in results] == sorted(result.committed for result in results)
    assert results[-1].spent == pytest.approx(sum(trial.seconds for trial in ledger.history()))
