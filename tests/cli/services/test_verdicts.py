"""Report, notes, best, export and card speak from one verdict; a running study's words are provisional."""

import argparse
import dataclasses
import random

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from search.dashboard import notes
from search.dashboard.annotator import Annotation
from search.dashboard.publisher import Publisher
from search.records import Configuration, Rung, StudyRecord, default_configuration
from search.study import Summary
from tests.support.toy_study import toy_space, toy_storage, toy_study, work
from tmsearch.cli.commands import show
from tmsearch.cli.services import recipes, verdicts
from tmsearch.cli.services.report import answer as report_answer
from tmsearch.cli.view.closing import closing_lines
from tmsearch.cli.view.format import counts_line
from tmsearch.cli.view.progress import ProgressPrinter, study_parts
from tmsearch.cli.view.status_page import _lines_above
from tmsearch.trial.facts import CONFIRMS

WORDS = [10] * 18
SPACE = {
    "study": "d",
    "data": {"dataset": "demo"},
    "budget": {"max_steps": 24, "rungs": [6, 24], "strategy": "halving"},
    "train": {"model": "demo/nano"},
    "search": {"learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}},
    "start": [],
}


def errors(rate, seed):
    rng = random.Random(f"{seed}/{rate}")
    return [sum(rng.random() < rate for _ in range(10)) for _ in WORDS]


def trial(number, origin, rates, state="finished", rate_of_learning=1e-3, **params):
    rungs = []
    for step, rate in rates.items():
        made = errors(rate, f"{number}{origin}{params}")
        rungs.append(Rung(step, sum(made) / sum(WORDS), {"errors": made, "train_seconds": 1.0}))
    values = {"model": "demo/nano", "learning_rate": rate_of_learning, **params}
    return Configuration(number, origin, {"learning_rate": rate_of_learning}, values, state, rungs=tuple(rungs))


def summary(history, trials, name="d", budget=None, **facts):
    space = {**SPACE, "study": name, "budget": budget or SPACE["budget"]}
    record = StudyRecord(name, space, "f", 0, trials, False, "test", 0.0)
    return Summary(record, tuple(history), {"words:0": WORDS, **facts})


def search(default_in_search=True):
    first = trial(0, "start" if default_in_search else "sampled", {6: 0.5, 24: 0.45}, rate_of_learning=1e-4)
    return summary([first, trial(1, "sampled", {6: 0.4, 24: 0.28})], trials=2)


def confirmation(default_rate, rival_rate, default_trial=0):
    arms = []
    for name, rate, number in (("default", 1e-4, default_trial), ("trial 1", 1e-3, 1)):
        numbered = {} if number is None else {"trial": number}
        params = {"model": "demo/nano", "learning_rate": rate}
        arms.append({"name": name, **numbered, "params": params, "drawn": {"learning_rate": rate}})
    history = []
    for seed in range(3):
        for arm, rate in zip(arms, (default_rate, rival_rate), strict=True):
            number = len(history)
            learning_rate = arm["params"]["learning_rate"]
            history.append(trial(number, "arm", {24: rate}, rate_of_learning=learning_rate, seed=seed + 1))
    plan = {"of": "d", "top": 1, "folds": 0, "seeds": 3, "arms": arms}
    budget = {"max_steps": 24, "rungs": [24], "strategy": "race"}
    return summary(history, 6, name="d-confirm", budget=budget, **{CONFIRMS: plan})


def test_what_is_not_proven_takes_the_default_recipe_for_that_reason_everywhere(monkeypatch):
    parent, confirmed = search(), confirmation(0.34, 0.335)
    result = verdicts.verdict(confirmed)
    assert not result.is_significant
    decision = verdicts.decide(confirmed)
    assert decision.subject == "the default recipe (trial 0)"
    chosen, reason = recipes.choose_trial(parent, confirmed, None)
    assert chosen.number == 0
    assert decision.reason in reason
    assert "lowest mean" not in reason
    evidence = recipes.evidence(parent, confirmed, chosen)
    assert evidence["confirm"]["takes"] == decision.subject
    assert evidence["confirm"]["reason"] == decision.reason
    assert any("takes the default recipe (trial 0)" in line for line in verdicts.verdict_lines(confirmed))
    monkeypatch.setattr(report_answer, "finished_confirmation", lambda storage, study: confirmed)
    answer = report_answer.answer(None, parent, {0: None, 1: None})
    assert decision.subject in answer.headline
    assert decision.reason in answer.headline
    assert any(decision.subject in sentence for sentence in answer.certainty)


def test_what_is_proven_is_taken():
    parent, confirmed = search(), confirmation(0.5, 0.15)
    assert verdicts.decide(confirmed).subject == "trial 1"
    chosen, reason = recipes.choose_trial(parent, confirmed, None)
    assert chosen.number == 1
    assert "fewer word errors than the default recipe" in reason


def test_a_default_recipe_that_the_search_never_trained_can_be_exported():
    parent, confirmed = search(default_in_search=False), confirmation(0.3, 0.32, default_trial=None)
    chosen, reason = recipes.choose_trial(parent, confirmed, None)
    assert chosen.number == recipes.NOT_SEARCHED
    assert chosen.params["learning_rate"] == 1e-4
    assert reason.startswith("the default recipe: No better")
    assert recipes.evidence(parent, confirmed, chosen)["trial"] is None


def test_a_running_study_compares_no_different_steps_and_says_provisional(monkeypatch):
    monkeypatch.setattr(report_answer, "finished_confirmation", lambda storage, study: None)
    default = trial(0, "start", {6: 0.5}, state="paused", rate_of_learning=1e-4)
    running = summary([default, trial(1, "sampled", {6: 0.4, 24: 0.28})], trials=4)
    answer = report_answer.answer(None, running, {0: None, 1: None})
    assert "provisional" in answer.headline
    assert answer.certainty[0].startswith("Provisional")
    reference = answer.references[-1]
    assert reference.name == "the default recipe at step 6"
    assert f"where trial 1 had {running.history[1].curve[6]:.3f}" in reference.remark
    assert "24" not in reference.remark
    nothing_shared = dataclasses.replace(running.history[1], rungs=running.history[1].rungs[1:])
    apart = dataclasses.replace(running, history=(default, nothing_shared))
    assert not report_answer.answer(None, apart, {0: None, 1: None}).references


def test_closing_lines_count_rightly_and_offer_what_makes_sense():
    log = trial(2, "imported", {24: 0.2})
    ended = summary([*search().history, log], trials=2)
    assert ended.has_ended
    assert counts_line(ended) == "2 configurations: 2 finished; 1 imported beside them"
    assert any("tmsearch confirm d" in line for line in closing_lines(ended))
    interrupted = dataclasses.replace(ended, record=dataclasses.replace(ended.record, trials=5))
    lines = closing_lines(interrupted)
    assert not any("confirm" in line for line in lines)
    assert any("tmsearch resume d" in line for line in lines)
    assert "provisional" in "".join(lines)
    failed = [dataclasses.replace(trial(n, "sampled", {}, state="failed"), failure="oom") for n in range(4)]
    assert study_parts(summary(failed, trials=4))[0] == "d: 0 of 4 configurations have a result"


def test_status_and_list_count_what_has_a_result(monkeypatch, capsys):
    failed = [dataclasses.replace(trial(n, "sampled", {}, state="failed"), failure="oom") for n in range(2)]
    waiting = [trial(n, "added", {}, state="queued") for n in (2, 3)]
    log = trial(4, "imported", {24: 0.2})
    without_result = summary([*failed, *waiting, log], trials=3)
    assert _lines_above(without_result, 200)[0] == (
        "study d: 0 of 4 configurations have a result: 2 failed, 2 queued; 1 imported beside them"
    )
    monkeypatch.setattr(show, "open_storage", lambda url: None)
    monkeypatch.setattr(show, "_readable", lambda storage: [without_result])
    show.list_studies(argparse.Namespace(storage=None, json=False))
    assert "  0 of   4  best WER -" in capsys.readouterr().out


class Annotator:
    """Notes that rest on how far the default recipe got."""

    value_name = "loss"

    def open(self, history, keep_turn):
        self.default = default_configuration(history)

    def study_note(self, study_id):
        return "study"

    def basis(self, configuration):
        return f"default at {self.default.steps if self.default else 0}"

    def annotate(self, configuration):
        return Annotation(f"trial {configuration.number}: {self.basis(configuration)}. " + "word " * 900)

    def close(self):
        pass


def test_notes_are_brought_up_to_date_at_the_end_and_a_persons_words_stay(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 5)
    work(ledger, space, tmp_path / "toy")
    publisher = Publisher(ledger, space, pytest.fail, Annotator())
    publisher.publish()
    study = optuna.load_study(study_name="toy", storage=storage.optuna)
    old = "trial 1: default at 2. " + "word " * 700
    owner = optuna.Trial(study, study.trials[1]._trial_id)
    save_note(owner, f"mine above\n\n---\n\n{notes.with_basis(old, 'default at 2')}mine below")
    with storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0 WHERE number = 4")
    publisher.publish()
    default = default_configuration(ledger.history())
    note = get_note(owner)
    assert note.startswith(f"mine above\n\n---\n\ntrial 1: default at {default.steps}. word")
    assert note.endswith(")\nmine below")
    assert "default at 2." not in note or default.steps == 2
    assert notes.bases(study)[study.trials[1]._trial_id] == f"default at {default.steps}"


def test_what_goes_on_after_an_interruption_resumes(capsys):
    interrupted = dataclasses.replace(trial(0, "start", {}, state="paused"), target=6)
    printer = ProgressPrinter(summary([interrupted, trial(1, "sampled", {6: 0.4}, state="paused")], trials=3))
    printer.claimed(0, {"learning_rate": 1e-4}, 0, 6)
    printer.claimed(1, {"learning_rate": 1e-3}, 6, 24)
    printer.claimed(2, {"learning_rate": 1e-3}, 0, 6)
    verbs = [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()]
    assert verbs == ["trial 0: resumes on its way to step 6", "trial 1: resumes from step 6", "trial 2: starts"]
