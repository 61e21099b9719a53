"""The command confirm: the leaders and the default recipe again, as a study of its own."""

from __future__ import annotations

import argparse

from search import study
from search.errors import UserError
from search.exit_codes import DONE
from search.records import StudyRecord
from search.schedulers import race_reference, racing
from search.storage.database import Storage, open_storage
from search.study import Summary
from tmsearch.cli.notice import EndNotice, notice_at_end
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.confirmation import ConfirmOptions, open_confirmation, planned_rounds, recipe_params
from tmsearch.cli.services.run_study import new_trial_process, run_study, worker_plan
from tmsearch.cli.view.chat import fitting_lines
from tmsearch.cli.view.format import searched_knobs
from tmsearch.formatting import clock_time
from tmsearch.tracking import choice
from tmsearch.trial.facts import ArmPlan, ConfirmationPlan, StudyFacts


def confirm(arguments: argparse.Namespace) -> int:
    """Race the leaders against the default recipe, and say whether the winner is real."""
    storage = open_storage(arguments.storage)
    with notice_at_end(arguments, storage) as notice:
        return notice.ended(_confirm(storage, arguments, notice))


def _confirm(storage: Storage, arguments: argparse.Namespace, notice: EndNotice) -> int:
    parent = study.summarize(study.open_study(storage, arguments.study))
    facts = StudyFacts.from_json(parent.facts)
    if facts.confirms:
        of = facts.confirms.of
        raise UserError(f"{arguments.study}: is a confirmation itself; `tmsearch confirm {of}` continues it")
    if arguments.test and not facts.known_data.test:
        raise UserError(f"{arguments.study}: --test: there is no test split; data.test was 0")
    choice.choose(arguments.track, None)  # before anything is written
    options = ConfirmOptions(arguments.top, arguments.seeds, arguments.folds)
    ledger, plan = open_confirmation(storage, parent, options)
    summary = study.summarize(ledger)
    notice.study = ledger.study
    notice.text_of = _notice
    for line in _plan_lines(parent, plan, summary):
        print(line, flush=True)
    timeout = None if arguments.budget is None else arguments.budget - summary.spent
    child = new_trial_process()
    try:
        exit_code = DONE
        if timeout is None or timeout > 0:
            workers = worker_plan(arguments)
            exit_code = run_study(ledger, child, timeout, verdicts.verdict_lines, workers, arguments.track)
        else:
            print("the budget is spent; a larger --budget continues")
            for line in verdicts.verdict_lines(summary):
                print(line)
        if exit_code == DONE and arguments.test:
            verdicts.read_test_split(ledger, child)
        return exit_code
    finally:
        child.close()


def _notice(summary: Summary, ending: str) -> str:
    """The confirmation's verdict for a chat."""
    return fitting_lines([f"study {summary.record.name}: {ending}", *verdicts.verdict_lines(summary)])


def _plan_lines(parent: Summary, plan: ConfirmationPlan, summary: Summary) -> list[str]:
    """What will be trained and what it takes at most, estimated from the search."""
    names = [arm.name for arm in plan.arms]
    rounds = planned_rounds(plan, summary.record)
    first_seed = summary.record.seed + 1
    split = f"{plan.folds} folds" if plan.folds else "the study's own split"
    trained = _most_trainings(plan, summary.record, rounds)
    costs = [_training_seconds(parent, arm) for arm in plan.arms]
    costs[1:] = sorted(costs[1:], reverse=True)  # of the leaders the slow ones may be those that stay
    seconds = sum(cost * trainings for cost, trainings in zip(costs, trained, strict=True))
    spent = f", of which {clock_time(summary.spent)} is spent" if summary.spent else ""
    leaving = ", and after each round the worse half of the leaders leaves" if min(trained) < rounds else ""
    return [
        f"confirm {plan.of}: {names[0]} recipe against {', '.join(names[1:])}; up to {rounds} trainings each, "
        f"seeds {first_seed} to {first_seed + rounds - 1}, on {split}{leaving}",
        *(f"  {arm.name}: {searched_knobs(parent.record.space, arm.params)}" for arm in plan.arms),
        f"at most {sum(trained)} trainings, about {clock_time(seconds)}{spent}; it ends once the answer is known",
    ]


def _most_trainings(plan: ConfirmationPlan, record: StudyRecord, rounds: int) -> list[int]:
    """Trainings of the default recipe and of each leader, those that stay longest first, if no round is left out."""
    leaders = len(plan.arms) - 1
    if not racing.drops_losers(record.space["budget"]["strategy"]):
        return [rounds] * (leaders + 1)
    counts = race_reference.contenders_by_round(leaders, rounds)
    return [rounds, *(sum(index < count for count in counts) for index in range(leaders))]


def _training_seconds(parent: Summary, arm: ArmPlan) -> float:
    """Seconds of one training in full, at the recipe's own speed in the search, else at that of the slowest trial."""
    max_steps = parent.record.space["budget"]["max_steps"]
    trials = [trial for trial in parent.history if trial.steps and recipe_params(trial.params or {}) == arm.params]
    if not trials:
        trials = [trial for trial in parent.history if trial.steps and trial.seconds]
    return max((trial.seconds_a_step * max_steps for trial in trials), default=0.0)
