"""Rungs in seconds: what the same training time bought is compared, whatever a step costs."""

import dataclasses
import json
import math

import pytest

from search.errors import RunError
from search.execution.worker import Interrupts
from search.process_id import Identity
from search.records import Claim, Configuration, Rung
from search.samplers import sampler
from search.schedulers.asha import STRATEGIES
from search.schedulers.scheduler import Rule, Study, Work, choose, leader, seconds_to_finish, settle
from search.schedulers.time_rungs import Pace
from search.simulation import benchmark_table, simulator
from search.simulation.memory_ledger import MemoryLedger
from search.simulation.simulator import Way
from search.space.budget import Budget
from search.space.search_space import Space
from search.study import summarise
from tests.support.toy_space import GOOD, load_text, mistake
from tests.support.toy_study import SPACE, Watcher, told, toy_space, toy_storage, toy_study, work

PACE = Pace((10.0, 20.0), max_steps=100, probe=2)
RULE = Rule((100,), "halving", 2, 0, PACE)
TIMED = SPACE.replace("max_steps: 8, rungs: [2, 4, 8]", "max_steps: 8, rungs: [4s, 8s]")


def config(number, *evaluations, state="paused", target=None, failure=None):
    """Evaluations are (step, seconds of the segment, value)."""
    rungs = tuple(Rung(step, value, {"train_seconds": seconds}) for step, seconds, value in evaluations)
    steps = rungs[-1].step if rungs else 0
    return Configuration(
        number, "sampled", {}, {}, state, rungs=rungs, target=steps if target is None else target, failure=failure
    )


def chosen(*history, total=9):
    return choose(STRATEGIES["halving"], Study(RULE, history, total))


def test_a_configuration_is_evaluated_for_its_speed_then_brought_to_its_rung():
    assert chosen() == Work(None, 0, 2)
    probed = config(0, (2, 1.0, 0.9))
    assert chosen(probed) == Work(0, 2, 20), "half a second a step: the ten seconds are at step 20"
    assert chosen(config(0, (2, 4.0, 0.9))) == Work(0, 2, 5)
    short = config(0, (2, 1.0, 0.9), (20, 6.0, 0.8))
    assert chosen(short) == Work(0, 20, 29), "faster than it seemed: on, at the speed of the last segment"
    there = config(0, (2, 1.0, 0.9), (20, 9.0, 0.8))
    assert chosen(there) == Work(None, 0, 2), "it waits at its rung"


def test_what_was_begun_ends_where_it_was_begun_to_end():
    begun = config(0, (2, 1.0, 0.9), target=17)
    assert chosen(begun) == Work(0, 2, 17)
    assert chosen(config(0, state="queued")) == Work(0, 0, 2)


def test_the_same_time_is_compared_not_the_same_step():
    fast = config(0, (2, 0.2, 0.9), (95, 9.3, 0.5))
    slow = config(1, (2, 4.0, 0.9), (5, 6.0, 0.4))
    assert chosen(fast, slow) == Work(1, 5, 10)
    assert leader(RULE, (fast, slow)) is slow
    ended = config(0, (2, 0.2, 0.9), (95, 9.3, 0.5), (100, 0.5, 0.3), state="finished")
    assert PACE.seen(ended).curve == {1: 0.5, 2: 0.3, 3: 0.3}
    assert PACE.seen(config(2, (2, 15.0, 0.7))).curve == {1: 0.7}, "the probe itself took the rung's time"
    assert PACE.seen(fast).target == PACE.seen(fast).steps == 1
    assert PACE.seen(config(3, (2, 1.0, 0.9), state="failed", target=20, failure="oom")).target == 1


def test_it_ends_at_the_full_budget_and_not_past_it():
    quick = config(0, (2, 0.002, 0.9))
    assert chosen(quick, total=1) == Work(0, 2, 100)
    top = config(0, (2, 1.0, 0.9), (20, 9.0, 0.8), (40, 10.0, 0.7))
    assert chosen(top, total=1) == Work(0, 40, 100)
    assert seconds_to_finish(RULE, (top,)) == pytest.approx(20 / 40 * 60)
    claim = Claim("s", 0, 1, "me", {}, {}, 40, 100, ())
    assert settle(STRATEGIES["halving"], RULE, [top], 9, claim, 0.5, {"train_seconds": 1.0})[0] == "finished"


def test_a_training_that_does_not_say_its_time_is_an_error():
    silent = Configuration(0, "sampled", {}, {}, "paused", rungs=(Rung(2, 0.5, {}),), target=2)
    with pytest.raises(RunError, match="step 2 came without its train_seconds"):
        chosen(silent)


def test_median_judges_at_rungs_only():
    rule = dataclasses.replace(RULE, strategy="median")
    others = [config(number, (2, 1.0, 0.1), (20, 9.0, 0.1)) for number in range(3)]
    probe = Claim("s", 3, 1, "me", {}, {}, 0, 2, ())
    history = [*others, config(3, state="running", target=2)]
    assert settle(STRATEGIES["median"], rule, history, 9, probe, 0.9, {"train_seconds": 1.0}) == ("paused", None)
    probed = config(3, (2, 1.0, 0.9), state="running", target=20)
    rung = dataclasses.replace(probe, first_step=2, last_step=20)
    assert settle(STRATEGIES["median"], rule, [*others, probed], 9, rung, 0.9, {"train_seconds": 9.0})[0] == "pruned"


@pytest.mark.parametrize("strategy", ["halving", "bracket", "median", "none"])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_strategy_by_time_ends(strategy, workers):
    rule = dataclasses.replace(RULE, strategy=strategy)
    ledger, me, running = MemoryLedger("toy", 8), Identity.mine(), []
    search = toy_ranges()
    while True:
        while len(running) < workers and (claim := ledger.claim(me, rule)):
            if claim.params is None:
                drawn = sampler.draw(
                    search, rule.seen(claim.history), seed=1, number=claim.number, last_rung=rule.last_rung
                )
                ledger.set_params(claim, drawn, drawn, "sampled")
            running.append(claim)
        if not running:
            break
        claim = running.pop(0)
        drawn = ledger.history()[claim.number].drawn
        cost = 0.02 if drawn["kind"] == "fancy" else 1.0
        seconds = cost * (claim.last_step - claim.first_step)
        ledger.commit(claim, drawn["x"] + 1.0 / claim.last_step, {"train_seconds": seconds}, rule)
    history = ledger.history()
    assert len(history) == 8
    full = [one for one in history if one.state == "finished"]
    assert full
    assert all(one.steps == 100 for one in full)
    assert {one.state for one in history} <= {"finished", "pruned"}
    assert (len(full) == 8) == (strategy == "none")


def toy_ranges():
    from search.space.distributions import Choice, FloatRange

    return {"x": FloatRange(0.0, 10.0), "kind": Choice(("plain", "fancy"))}


def test_a_search_of_toys_by_time_goes_on_as_if_nothing_had_been(tmp_path):
    costs = {"plain": 1.0, "fancy": 4.0}
    (tmp_path / "whole").mkdir()
    space = toy_space(tmp_path, text=TIMED)
    whole = toy_study(toy_storage(tmp_path / "whole"), space, 6)
    assert work(whole, space, tmp_path / "whole" / "toy", step_costs=costs)[0] == "done"
    kinds = {one.drawn["kind"] for one in whole.history()}
    assert kinds == {"plain", "fancy"}
    for one in whole.history():
        assert one.steps == 8 or one.total("train_seconds") >= 0.8 * 4
    assert summarise(whole).best.steps == 8

    (tmp_path / "cut").mkdir()
    cut = toy_study(toy_storage(tmp_path / "cut"), space, 6)
    for _ in range(30):
        interrupts, watcher = Interrupts(), Watcher()
        watcher.on_progress = lambda number, event, asked=interrupts: asked.signal()
        outcome, _ = work(
            cut,
            space,
            tmp_path / "cut" / "toy",
            interrupts=interrupts,
            watcher=watcher,
            step_costs=costs,
            step_seconds=0.01,
        )
        if outcome == "done":
            break
    assert told(cut) == told(whole)


@pytest.mark.parametrize(
    ("rungs", "said"),
    [
        ("[30s, 20]", "budget.rungs: 30s is a duration and 20 is not; give all in steps, or all as durations"),
        ("[40, 1m]", "budget.rungs: 1m is a duration and 40 is not"),
        ("[30s, 30s]", "budget.rungs[1]: 30s does not rise above 30s"),
        ("[1m, 30s]", "budget.rungs[1]: 30s does not rise above 1m"),
        ("[0s]", "budget.rungs[0]: 0s is no time to judge at"),
        ("[999999d]", "budget.rungs[0]: 999999d is no time to judge at"),
        ("30s", "budget.rungs: 30s is no list"),
        ("[30x, 40]", "30x"),
    ],
)
def test_a_mistake_in_durations_is_one_line(tmp_path, monkeypatch, rungs, said):
    monkeypatch.chdir(tmp_path)
    assert said in mistake(GOOD.replace("[20, 40, 80]", rungs))


def test_ways_that_count_steps_take_no_durations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    timed = GOOD.replace("rungs: [20, 40, 80]", "rungs: [30s], strategy: hyperband")
    assert "budget.strategy: hyperband counts steps, and budget.rungs are in seconds" in mistake(timed)


def test_durations_are_kept_with_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = load_text(GOOD.replace("[20, 40, 80]", '[30s, "1.5m", 2h]'))
    assert space.budget.rung_seconds == (30.0, 90.0, 7200.0)
    assert space.budget.judged == "30s, 90s, 2h of training, step 80"
    assert Space.from_json(space.to_json()) == space
    assert space.budget.rule.pace == Pace((30.0, 90.0, 7200.0), 80, 2)
    plain = load_text(GOOD)
    assert "rung_seconds" not in plain.budget.to_json(), "the fingerprint of a study in steps stays what it was"
    assert Budget.from_json(plain.budget.to_json()) == plain.budget
    assert plain.fingerprint() != space.fingerprint()


def test_a_replay_by_time_pays_less_for_the_dear_ones(tmp_path):
    rows = [{"study": "toy", "rungs": [10, 20, 40, 80], "search": RANGES}]
    for number in range(40):
        dear = number % 2 == 0
        drawn = {"x": number / 4, "kind": "plain" if dear else "fancy"}
        seconds = [10.0, 10.0, 20.0, 40.0] if dear else [1.0, 1.0, 2.0, 4.0]
        values = [abs(number - 21) / 40 + 1 / step for step in (10, 20, 40, 80)]
        curve = [
            {"step": step, "value": value, "seconds": cost}
            for step, value, cost in zip((10, 20, 40, 80), values, seconds, strict=True)
        ]
        rows.append({"configuration": drawn, "rungs": curve})
    file = tmp_path / "toy.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = benchmark_table.read(file)
    way = Way("by time", "halving", "random", seconds=(2.0, 4.0))
    first, second = (simulator.Search(table, way, 0, 1) for _ in range(2))
    assert first.run(simulator.targets(table)).reached
    second.run(simulator.targets(table))
    assert simulator.told(first.ledger.history()) == simulator.told(second.ledger.history())
    by_kind = {"plain": set(), "fancy": set()}
    for one in first.ledger.history():
        by_kind[one.drawn["kind"]].add(one.steps)
    assert 10 in by_kind["plain"], "ten seconds for the first steps: past both rungs at once"
    assert min(by_kind["fancy"]) == 20


RANGES = {"x": {"kind": "float", "low": 0, "high": 10}, "kind": {"kind": "choice", "values": ["plain", "fancy"]}}


def test_recorded_curves_are_stopped_where_they_were_evaluated():
    pace = dataclasses.replace(PACE, probe=10, stops=(10, 20, 40, 100))
    assert pace.step(config(0, (10, 2.0, 0.9)), 1) == 40, "step 50 would be ten seconds"
    assert pace.step(config(0, (10, 2.0, 0.9)), 3) == 100
    assert math.isclose(sum(pace.seconds), 30.0)
