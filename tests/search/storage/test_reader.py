"""Reading a long history: how often the database is asked, and that Python's collector is left as it was."""

import gc

import pytest
import sqlalchemy as sa

from search import study
from search.storage import reader
from tests.support.large_study import LargePlan, large_study


@pytest.mark.parametrize("configurations", [3, 150])
def test_a_history_of_any_length_takes_as_many_statements(tmp_path, configurations):
    ledger = large_study(tmp_path, LargePlan(configurations, clips=2, waiting=0))
    statements = []
    sa.event.listen(ledger.storage.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    history = study.open_study(ledger.storage, ledger.study).history()
    assert len(history) == configurations
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 6, statements


def test_the_collector_rests_while_results_are_read_and_runs_again_after_it():
    with reader._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), reader._no_collection():
        print(1 / 0)
    assert gc.isenabled()
    gc.disable()
    try:
        with reader._no_collection():
            pass
        assert not gc.isenabled(), "somebody else's decision"
    finally:
        gc.enable()
