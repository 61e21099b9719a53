"""A confirmation: the leaders and the default recipe again, as a study of its own, until the answer is known."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from search import study
from search.errors import UserError
from search.execution.messages import Checked
from search.exit_codes import DONE
from search.storage.database import Storage
from search.storage.ledger import Ledger
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.confirmation import (
    ConfirmOptions,
    PlannedConfirmation,
    open_confirmation,
    plan_confirmation,
)
from tmsearch.cli.services.create import check_space
from tmsearch.cli.services.plan import StudyPlan, card_to_plan_for, cost_text, data_lines
from tmsearch.cli.services.run_study import StudyView, new_trial_process, run_study
from tmsearch.cli.services.runs import confirm_plan
from tmsearch.cli.services.runs.confirm_plan import RaceEstimate
from tmsearch.cli.services.runs.preconditions import check_run
from tmsearch.cli.services.runs.workers import WorkerPlan
from tmsearch.cli.view.format import judged_line
from tmsearch.formatting import clock_time
from tmsearch.tracking import choice
from tmsearch.trial.facts import DataFacts, ModelNeeds, StudyFacts


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
    """A confirmation that may begin: as it was planned, and the study that confirms the search."""

    planned: PlannedConfirmation
    ledger: Ledger


def prepare(storage: Storage, name: str, options: RaceOptions, view: StudyView) -> Race:
    """The confirmation of a search, made if there is none.

    Raises:
        UserError: the options contradict an earlier plan, or the search has no result to confirm.
    """
    planned = _checked(storage, name, options)
    for remark in planned.remarks:
        view.say(remark)
    return Race(planned, open_confirmation(storage, planned))


def _checked(storage: Storage, name: str, options: RaceOptions) -> PlannedConfirmation:
    """The confirmation of a search as these options ask for it; writes nothing. Raises as `prepare` does."""
    parent = study.summarize(study.open_study(storage, name))
    facts = StudyFacts.from_json(parent.facts)
    if facts.confirms:
        of = facts.confirms.of
        raise UserError(f"{name}: is a confirmation itself; `tmsearch confirm {of}` continues it")
    if options.test and not facts.known_data.test:
        raise UserError(f"{name}: --test: there is no test split; data.test was 0")
    choice.choose(options.track, None)
    check_run(storage, options.workers)
    return plan_confirmation(storage, parent, options.plan)


def run(race: Race, options: RaceOptions, view: StudyView) -> int:
    """Race the leaders against the default recipe until the answer is known; returns an exit code.

    `view` gets the verdict in place of its own last lines.
    """
    price = options.workers.price
    last_lines = functools.partial(verdicts.closing_lines, price=price)
    view = dataclasses.replace(view, last_lines=last_lines)
    summary = study.summarize(race.ledger)
    estimate = confirm_plan.race_estimate(race.planned, confirm_plan.measured_costs(race.planned))
    for line in (*confirm_plan.head_lines(race.planned), estimate.line(price=price)):
        view.say(line)
    timeout = None if options.budget is None else options.budget - summary.spent
    child = new_trial_process()
    try:
        exit_code = DONE
        if timeout is None or timeout > 0:
            exit_code = run_study(race.ledger, child, timeout, options.workers, options.track, view)
        else:
            view.say("the budget is spent; a larger --budget continues")
            for line in last_lines(summary):
                view.say(line)
        if exit_code == DONE and options.test:
            verdicts.read_test_split(race.ledger, child, view.say)
        return exit_code
    finally:
        child.close()


def plan_race(storage: Storage, name: str, options: RaceOptions, gpu_gb: float | None) -> StudyPlan:
    """Check all that a run would check, and the data and models, and say what it would do; writes nothing.

    Args:
        storage: where the search is.
        name: the search's.
        options: as of `run`; the workers' price is that of the plan.
        gpu_gb: memory of the GPU to plan for, at its predicted speed; None or 0: this machine, at the search's speed.

    Raises:
        UserError: a person's mistake in the options, or the data has changed.
    """
    planned = _checked(storage, name, options)
    child = new_trial_process()
    try:
        checked = check_space(child, confirm_plan.model_space(planned), measure=gpu_gb is None)
    finally:
        child.close()
    _check_data(planned, checked)
    return _race_plan(storage, planned, checked, options, gpu_gb)


def _check_data(planned: PlannedConfirmation, checked: Checked) -> None:
    """Raise UserError where the data is not what was searched on: no training would start."""
    known = StudyFacts.from_json(planned.parent.facts).known_data
    data = DataFacts.from_json(checked.data)
    if data.training_fingerprint != known.training_fingerprint:
        dataset = planned.parent.record.space["data"]["dataset"]
        raise UserError(
            f"data.dataset: {dataset}, or what is trained on beside it, changed since the study was made "
            f"({known.clips} clips then, {data.clips} now); pin data.revision, put the old files back, or search again "
            "with --study NEW"
        )


def _race_plan(
    storage: Storage, planned: PlannedConfirmation, checked: Checked, options: RaceOptions, gpu_gb: float | None
) -> StudyPlan:
    """The plan of a confirmation whose data and models were checked."""
    record = planned.parent.record
    models = {name: ModelNeeds.from_json(model) for name, model in checked.models.items()}
    card = card_to_plan_for(models, gpu_gb)
    needs = confirm_plan.machine_needs(planned, models, card, is_predicted=bool(gpu_gb))
    estimate = confirm_plan.race_estimate(planned, needs.costs)
    speed = ", predicted" if gpu_gb else confirm_plan.measured_speed(planned)
    max_steps = record.space["budget"]["max_steps"]
    lines = [
        f"study {planned.name}: at most {estimate.trainings} trainings of {max_steps} steps; {storage.display_name}",
        *confirm_plan.head_lines(planned),
        *planned.remarks,
    ]
    if not planned.parent.has_ended:
        lines.append(f"study {record.name} has not ended, {judged_line(planned.parent)}: its leaders may change")
    lines += [
        *data_lines(confirm_plan.model_space(planned), StudyFacts.from_json(planned.parent.facts).known_data),
        *needs.lines,
        f"estimate: {estimate.line(speed)}",
        *_budget_lines(estimate, options),
        *_test_lines(planned, options),
    ]
    if estimate.left:
        lines.append(confirm_plan.disk_line(planned, estimate, needs, storage.folder))
    seconds = min(estimate.seconds, _most_seconds(estimate, options))
    cost = None
    price = options.workers.price
    if price is not None:
        cost = seconds / 3600 * price
        spent = f", of which {estimate.spent / 3600 * price:.2f} are spent" if estimate.spent else ""
        lines.append(f"{cost_text(seconds, price)}{spent}")
    return StudyPlan(tuple(lines), estimate.trainings, seconds, cost, planned.ledger is not None)


def _most_seconds(estimate: RaceEstimate, options: RaceOptions) -> float:
    """Seconds of training by all workers together that the budget leaves room for."""
    if options.budget is None:
        return estimate.seconds
    return estimate.spent + options.workers.count * max(0.0, options.budget - estimate.spent)


def _budget_lines(estimate: RaceEstimate, options: RaceOptions) -> list[str]:
    """Whether the budget may end the race before its answer."""
    if options.budget is None or not estimate.left or _most_seconds(estimate, options) >= estimate.seconds:
        return []
    ends = "is spent" if options.budget <= estimate.spent else "may end it without an answer"
    return [f"budget: {clock_time(options.budget)} {ends}; a larger one continues"]


def _test_lines(planned: PlannedConfirmation, options: RaceOptions) -> list[str]:
    """What reading the test split comes to, where that is asked for."""
    if not options.test:
        return []
    clips = len(StudyFacts.from_json(planned.parent.facts).known_data.test)
    facts = {} if planned.ledger is None else planned.ledger.facts()
    day = StudyFacts.from_json(facts).test_read
    if day is not None:
        return [f"test: the locked test split, {clips} clips, was already read on {day}; its result is kept"]
    return [f"test: the locked test split, {clips} clips, is read at the end, once"]
