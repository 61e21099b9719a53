"""A study's total of configurations, as several programs with different --trials set it."""

import multiprocessing

from search import study
from search.process_id import ProcessId
from search.storage.database import open_storage
from tests.support.toy_study import toy_space, toy_storage, toy_study

ELSEWHERE = ProcessId("elsewhere", "0", 1, "1")


def claim_some(ledger, folder, count):
    for _ in range(count):
        claim = ledger.claim(ELSEWHERE, toy_space(folder, "none").budget.scheduler_config)
        ledger.set_params(claim, {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"}, "sampled")


def test_a_total_is_never_lowered_below_what_is_claimed(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    claim_some(ledger, tmp_path, 4)
    assert ledger.set_trials(1) == 4
    assert ledger.record().trials == 4
    assert ledger.set_trials(9) == 9
    assert ledger.set_trials(5) == 5, "nobody works, so it may be lowered"


def test_a_total_is_not_lowered_while_others_work_towards_it(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    ledger.sign_in(ELSEWHERE, "there", "1")
    assert ledger.set_trials(3) == 6
    assert ledger.set_trials(8) == 8


def set_total(url, trials, ready, may_end):
    ledger = study.open_study(open_storage(url), "toy")
    ready.wait()
    ledger.set_trials(trials, ProcessId.current())
    may_end.wait()  # as a run that goes on


def test_of_runs_that_start_at_once_the_largest_total_holds(tmp_path):
    storage = toy_storage(tmp_path)
    ledger = toy_study(storage, toy_space(tmp_path), 20)
    context = multiprocessing.get_context("fork")
    totals = (3, 8, 5, 1, 7, 2)
    barriers = context.Barrier(len(totals)), context.Barrier(len(totals))
    url = f"sqlite:///{tmp_path}/db.sqlite"
    processes = [context.Process(target=set_total, args=(url, trials, *barriers)) for trials in totals]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert ledger.record().trials == 8
    assert ledger.set_trials(2) == 2, "they have ended"


def test_what_is_added_by_hand_is_covered_without_taking_back_a_stop(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 1)
    ledger.request_stop("why")
    for _ in range(2):
        ledger.append("added", {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"})
    ledger.cover_added()
    assert (ledger.record().trials, ledger.record().stopping) == (2, True)
