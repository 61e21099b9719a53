"""A confirmation: the leaders and the default recipe again, as a study of its own, until the answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from search import study
from search.errors import UserError
from search.exit_codes import DONE
from search.records import StudyRecord
from search.schedulers import race_reference, racing
from search.storage.database import Storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.confirmation import ConfirmOptions, open_confirmation, planned_rounds, recipe_params
from tmsearch.cli.services.run_study import StudyView, new_trial_process, run_study
from tmsearch.cli.services.runs.workers import WorkerPlan, check_workers
from tmsearch.cli.view.format import searched_knobs
from tmsearch.formatting import clock_time
from tmsearch.tracking import choice
from tmsearch.trial.facts import ArmPlan, ConfirmationPlan, StudyFacts


@dataclass(frozen=True)
class RaceOptions:
    """How a confirmation is run.

    Attributes:
        plan: what is trained.
        budget: seconds of training that it may take in all; None: no limit.
        workers: how many there are and what starts them.
        track: trackers as --track names them; None: as before.
        test: whether to read the locked test split at the end, once.
    """

    plan: ConfirmOptions = field(default_factory=ConfirmOptions)
    budget: float | None = None
    workers: WorkerPlan = field(default_factory=WorkerPlan)
    track: Sequence[str] | None = None
    test: bool = False


@dataclass(frozen=True)
class Race:
    """A confirmation that may begin: the search, and the study that confirms it."""

    parent: Summary
    ledger: Ledger
    plan: ConfirmationPlan


def prepare(storage: Storage, name: str, options: RaceOptions, view: StudyView) -> Race:
    """The confirmation of a search, made if there is none.

    Raises:
        UserError: the options contradict an earlier plan, or the search has no result to confirm.
    """
    parent = study.summarize(study.open_study(storage, name))
    facts = StudyFacts.from_json(parent.facts)
    if facts.confirms:
        of = facts.confirms.of
        raise UserError(f"{name}: is a confirmation itself; `tmsearch confirm {of}` continues it")
    if options.test and not facts.known_data.test:
        raise UserError(f"{name}: --test: there is no test split; data.test was 0")
    choice.choose(options.track, None)  # before anything is written
    check_workers(storage, options.workers)
    ledger, plan = open_confirmation(storage, parent, options.plan, view.say)
    return Race(parent, ledger, plan)


def run(race: Race, options: RaceOptions, view: StudyView) -> int:
    """Race the leaders against the default recipe until the answer is known; returns an exit code.

    `view` gets the verdict in place of its own last lines.
    """
    view = dataclasses.replace(view, last_lines=verdicts.verdict_lines)
    summary = study.summarize(race.ledger)
    for line in _plan_lines(race.parent, race.plan, summary):
        view.say(line)
    timeout = None if options.budget is None else options.budget - summary.spent
    child = new_trial_process()
    try:
        exit_code = DONE
        if timeout is None or timeout > 0:
            exit_code = run_study(race.ledger, child, timeout, options.workers, options.track, view)
        else:
            view.say("the budget is spent; a larger --budget continues")
            for line in verdicts.verdict_lines(summary):
                view.say(line)
        if exit_code == DONE and options.test:
            verdicts.read_test_split(race.ledger, child, view.say)
        return exit_code
    finally:
        child.close()


def _plan_lines(parent: Summary, plan: ConfirmationPlan, summary: Summary) -> list[str]:
    """What will be trained and what it takes at most, estimated from the search."""
    names = [arm.name for arm in plan.arms]
    rounds = planned_rounds(plan, summary.record)
    first_seed = summary.record.seed + 1
    split = f"{plan.folds} fold{'' if plan.folds == 1 else 's'}" if plan.folds else "the study's own split"
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
