"""The command confirm: the leaders and the default recipe again, as a study of its own."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from search import study
from search.errors import UserError
from search.records import IMPORTED, Configuration
from search.schedulers import racing
from search.space.search_space import Space
from search.storage import entries
from search.storage.database import Storage, open_storage
from search.storage.entries import Entry
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch import __version__
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.knobs import TRAIN
from tmsearch.cli.services.run_study import new_trial_process, run_study, worker_plan
from tmsearch.cli.view.format import searched_knobs
from tmsearch.config import TrainConfig, recommended_learning_rate
from tmsearch.errors import InputError
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import CONFIRMS, ArmPlan, ConfirmationPlan, StudyFacts

SUFFIX = "-confirm"
TOP, SEEDS = 3, 3


def confirm(arguments: argparse.Namespace) -> int:
    """Race the leaders against the default recipe, and say whether the winner is real."""
    storage = open_storage(arguments.storage)
    parent = study.summarize(study.open_study(storage, arguments.study))
    facts = StudyFacts.from_json(parent.facts)
    if facts.confirms:
        of = facts.confirms.of
        raise UserError(f"{arguments.study}: is a confirmation itself; `tmsearch confirm {of}` goes on with it")
    if arguments.test and not facts.known_data.test:
        raise UserError(f"{arguments.study}: --test: there is no test split; data.test was 0")
    ledger, plan = _opened(storage, parent, arguments)
    _enter(ledger, plan)
    for line in _announced(parent, plan, study.summarize(ledger)):
        print(line, flush=True)
    left = _left(study.summarize(ledger), arguments.budget)
    child = new_trial_process()
    try:
        code = 0
        if left is None or left > 0:
            code = run_study(ledger, child, left, verdicts.lines, worker_plan(arguments))
        else:
            print("the budget is spent; a larger --budget goes on")
            for line in verdicts.lines(study.summarize(ledger)):
                print(line)
        if code == 0 and arguments.test:
            verdicts.test(ledger, child)
        return code
    finally:
        child.close()


def _opened(storage: Storage, parent: Summary, arguments: argparse.Namespace) -> tuple[Ledger, ConfirmationPlan]:
    """The confirming study with its plan, made now or found."""
    name = parent.record.name + SUFFIX
    if name not in study.names(storage):
        return _created(storage, parent, arguments)
    ledger = study.open_study(storage, name)
    plan = StudyFacts.from_json(ledger.facts()).confirms
    if plan is None or plan.of != parent.record.name:
        raise UserError(f"{name}: a study of this name is no confirmation of {parent.record.name}; delete or rename it")
    for option in ("top", "folds"):
        asked = getattr(arguments, option)
        before = getattr(plan, option)
        if asked is not None and asked != before:
            raise UserError(
                f"{name}: --{option}: was begun with {before}; leave it out, or `tmsearch delete {name}` first"
            )
    if arguments.seeds is not None and arguments.seeds < plan.seeds:
        raise UserError(f"{name}: --seeds: was begun with {plan.seeds}; only more can be added")
    if arms(parent, plan.top) != plan.arms:
        print(f"the search has other leaders by now; `tmsearch delete {name}` first to confirm those instead")
    plan = dataclasses.replace(plan, seeds=max(plan.seeds, arguments.seeds or 0))
    ledger.set_trials(len(plan.arms) * plan.seeds)
    return ledger, plan


def _created(storage: Storage, parent: Summary, arguments: argparse.Namespace) -> tuple[Ledger, ConfirmationPlan]:
    top = arguments.top or TOP
    folds = arguments.folds or 0
    seeds = arguments.seeds or SEEDS
    if seeds < 2:
        raise UserError("--seeds: 1 tells nothing of what seeds do; take 2 at the least")
    plan = ConfirmationPlan(of=parent.record.name, top=top, folds=folds, seeds=seeds, arms=arms(parent, top))
    _enough_folds(parent, folds)
    space = Space.from_json(dict(parent.record.space))
    steps = space.budget.max_steps
    budget = dataclasses.replace(space.budget, rungs=(steps,), strategy="race", max_full=0)
    raced = dataclasses.replace(space, study=parent.record.name + SUFFIX, budget=budget, start=())
    known = {key: value for key, value in parent.facts.items() if not key.startswith("entry:")}
    trials = len(plan.arms) * plan.seeds
    ledger = study.create(
        storage,
        raced,
        seed=parent.record.seed,
        trials=trials,
        version=__version__,
        known={**known, CONFIRMS: plan.to_json()},
    )
    return ledger, plan


def _enough_folds(parent: Summary, folds: int) -> None:
    """Refuse more folds than there can be, before anything is written."""
    data = StudyFacts.from_json(parent.facts).known_data
    wanted = len(data.validation)
    most = 1 + len(data.train) // wanted
    if folds > most:
        raise UserError(f"--folds: {folds}: the clips beside the test split make {most} sets of {wanted} at most")


def arms(parent: Summary, top: int) -> tuple[ArmPlan, ...]:
    """The default recipe, then the leaders: their names, parameters, and what was drawn of them."""
    default = _default(parent)
    reached = [one for one in parent.history if one.rungs and one.failure is None and one.params is not None]
    own = [one for one in reached if one.origin != IMPORTED]
    ranked = sorted(own, key=lambda one: (-one.steps, one.value or 0.0, one.number))
    leaders = [one for one in ranked if _bare(one.params or {}) != default.params][:top]
    if not leaders:
        name = parent.record.name
        raise UserError(f"{name}: only the default recipe has a result yet; `tmsearch resume {name}` goes on")
    return (default, *(_arm(f"trial {one.number}", one) for one in leaders))


def _arm(name: str, one: Configuration) -> ArmPlan:
    return ArmPlan(name, params=_bare(one.params or {}), drawn=dict(one.drawn or {}), trial=one.number)


def _bare(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without what trainings of one recipe differ in."""
    return {name: value for name, value in params.items() if name not in racing.REPLICATE}


def _default(parent: Summary) -> ArmPlan:
    """The space's first `start` entry, what people already use; else every searched knob at its default.

    Where the learning rate is searched that is the model's recommended one; where the model is, the leader's.
    """
    name = parent.record.name
    first = next((one for one in parent.history if one.origin == "start" and one.params is not None), None)
    if first is not None:
        return _arm("default", first)
    if parent.best is None:
        raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` goes on")
    space = Space.from_json(dict(parent.record.space))
    params = {**space.train, **{knob: TRAIN[knob].default for knob in space.search}}
    if "model" in space.search:
        params["model"] = (parent.best.params or {})["model"]
    if "learning_rate" in space.search:
        try:
            params["learning_rate"] = recommended_learning_rate({"model": TrainConfig.model, **params})
        except InputError as error:
            raise UserError(f"{name}: no default recipe: {error}; or put one under `start`") from None
    return ArmPlan("default", params=_bare(params), drawn={})


def _enter(ledger: Ledger, plan: ConfirmationPlan) -> None:
    """Every training of the plan that is not there yet, round for round; the race decides which are run."""
    base, folds = ledger.record().seed, plan.folds
    wanted = []
    for place in range(plan.seeds):
        more = {"seed": (base + 1 + place) % 2**31, **({"fold": place % folds} if folds else {})}
        for arm in plan.arms:
            params = {**arm.params, **more}
            text = json.dumps(params, sort_keys=True)
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            wanted.append(Entry(key, arm.name.replace(" ", "-")[:16], arm.drawn, params, "paused"))
    entries.enter(ledger, wanted)


def _announced(parent: Summary, plan: ConfirmationPlan, found: Summary) -> list[str]:
    """What will be trained and what it takes at most, by what the search took."""
    names = [arm.name for arm in plan.arms]
    seeds, first = plan.seeds, found.record.seed + 1
    where = f"{plan.folds} folds" if plan.folds else "the study's own split"
    seconds = sum(_cost(parent, arm) for arm in plan.arms) * seeds
    spent = f", of which {clock_time(found.spent)} is spent" if found.spent else ""
    return [
        f"confirm {plan.of}: {names[0]} recipe against {', '.join(names[1:])}; up to {seeds} trainings each, seeds "
        f"{first} to {first + seeds - 1}, on {where}",
        *(f"  {arm.name}: {searched_knobs(parent.record.space, arm.params)}" for arm in plan.arms),
        f"at most {len(names) * seeds} trainings, about {clock_time(seconds)}{spent}; it ends once the answer is known",
    ]


def _cost(parent: Summary, arm: ArmPlan) -> float:
    """Seconds of one training in full, at the recipe's own speed in the search, else at the leader's."""
    full = parent.record.space["budget"]["max_steps"]
    same = [one for one in parent.history if one.steps and _bare(one.params or {}) == arm.params]
    known = same or [one for one in parent.history if one.steps and one.seconds]
    return max((one.seconds / one.steps * full for one in known), default=0.0)


def _left(found: Summary, budget: float | None) -> float | None:
    """Seconds of the budget that are not spent yet; None where there is no budget."""
    return None if budget is None else budget - found.spent
