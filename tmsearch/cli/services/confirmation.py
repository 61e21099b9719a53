"""The study that confirms another: its name, its arms, its plan, and the trainings that it races."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from search import study
from search.errors import UserError
from search.records import IMPORTED, Configuration
from search.schedulers import race_reference, racing
from search.space.search_space import Space
from search.storage import entries
from search.storage.database import Storage
from search.storage.entries import Entry
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch import __version__
from tmsearch.cli.services.knobs import TRAIN
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.model_sizes import recommended_learning_rate
from tmsearch.trial.facts import CONFIRMS, ArmPlan, ConfirmationPlan, StudyFacts

SUFFIX = "-confirm"
TOP, SEEDS = 3, 3


@dataclasses.dataclass(frozen=True)
class ConfirmOptions:
    """What a person asks of a confirmation; None: as it was started, else the default."""

    top: int | None = None
    seeds: int | None = None
    folds: int | None = None


@dataclasses.dataclass(frozen=True)
class PlannedConfirmation:
    """The confirmation of a search as it would be run now. Its study need not exist: nothing was written for it.

    Attributes:
        parent: the search.
        plan: what is trained.
        ledger: of the confirmation's study; None where there is none yet.
        history: its trainings as a run would find them: those that it has, and those that it would enter.
        remarks: what is to be said on a plan that was made before.
    """

    parent: Summary
    plan: ConfirmationPlan
    ledger: Ledger | None
    history: tuple[Configuration, ...]
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The study's."""
        return self.plan.of + SUFFIX

    @property
    def base_seed(self) -> int:
        """The search's seed, which the trainings' own follow."""
        return self.parent.record.seed if self.ledger is None else self.ledger.record().seed

    @property
    def strategy(self) -> str:
        """By which the race drops losers, or does not."""
        return racing.STRATEGY if self.ledger is None else str(self.ledger.record().space["budget"]["strategy"])


def plan_confirmation(storage: Storage, parent: Summary, options: ConfirmOptions) -> PlannedConfirmation:
    """The confirmation of `parent` that these options ask for; writes nothing.

    Raises:
        UserError: the options contradict the plan, or the search has no result to confirm.
    """
    name = parent.record.name + SUFFIX
    if name not in study.names(storage):
        plan = _new_plan(parent, options)
        study.check_unused(storage, name)
        missing = _trainings(plan, parent.record.seed, planned_rounds(plan, racing.STRATEGY))
        return PlannedConfirmation(parent, plan, None, _with_missing((), {}, missing), ())
    ledger = study.open_study(storage, name)
    plan, remarks = _updated_plan(ledger, parent, options)
    record = ledger.record()
    trainings = _trainings(plan, record.seed, planned_rounds(plan, record.space["budget"]["strategy"]))
    history = _with_missing(ledger.history(), ledger.facts(), trainings)
    return PlannedConfirmation(parent, plan, ledger, history, remarks)


def _with_missing(
    history: tuple[Configuration, ...], facts: Mapping[str, Any], trainings: Sequence[Entry]
) -> tuple[Configuration, ...]:
    """A study's history with the trainings that were not entered yet, as they will be."""
    missing = [training for training in trainings if entries.fact_key(training) not in facts]
    entered = (
        Configuration(number, training.origin, training.drawn, training.params, training.state)
        for number, training in enumerate(missing, start=len(history))
    )
    return (*history, *entered)


def open_confirmation(storage: Storage, planned: PlannedConfirmation) -> Ledger:
    """The study of a planned confirmation, created if it does not exist; its trainings are entered."""
    plan = planned.plan
    rounds = planned_rounds(plan, planned.strategy)
    if planned.ledger is None:
        ledger = _create(storage, planned.parent, plan)
    else:
        ledger = planned.ledger
        ledger.set_trials(len(plan.arms) * rounds)
    entries.enter(ledger, _trainings(plan, ledger.record().seed, rounds))
    return ledger


def planned_rounds(plan: ConfirmationPlan, strategy: str) -> int:
    """How often the default recipe is trained at most: more often than `plan.seeds` where losers are dropped.

    What they would have taken is spent on those that stay.
    """
    if not racing.drops_losers(strategy):
        return plan.seeds
    return race_reference.planned_rounds(len(plan.arms) - 1, plan.seeds)


def _updated_plan(ledger: Ledger, parent: Summary, options: ConfirmOptions) -> tuple[ConfirmationPlan, tuple[str, ...]]:
    """The plan that the study was started with, with more seeds if they are asked for, and remarks on it."""
    name = ledger.study
    plan = StudyFacts.from_json(ledger.facts()).confirms
    if plan is None or plan.of != parent.record.name:
        raise UserError(
            f"{name}: a study of this name does not confirm {parent.record.name}; delete it, or rename the search"
        )
    if ledger.record().created < parent.record.created:
        raise UserError(f"{name}: confirms an earlier study {parent.record.name}; `tmsearch delete {name}` first")
    for option in ("top", "folds"):
        wanted, planned = getattr(options, option), getattr(plan, option)
        if wanted is not None and wanted != planned:
            raise UserError(
                f"{name}: --{option}: was started with {planned}; leave it out, or `tmsearch delete {name}` first"
            )
    if options.seeds is not None and options.seeds < plan.seeds:
        raise UserError(f"{name}: --seeds: was started with {plan.seeds}; only more can be added")
    remarks: tuple[str, ...] = ()
    if plan_arms(parent, plan.top) != plan.arms:
        remarks = (f"the search has other leaders by now; `tmsearch delete {name}` first to confirm those instead",)
    return dataclasses.replace(plan, seeds=max(plan.seeds, options.seeds or 0)), remarks


def _new_plan(parent: Summary, options: ConfirmOptions) -> ConfirmationPlan:
    top = options.top or TOP
    folds = options.folds or 0
    seeds = options.seeds or SEEDS
    if seeds < 2:
        raise UserError("--seeds: 1 does not show what seeds change; give at least 2")
    plan = ConfirmationPlan(of=parent.record.name, top=top, folds=folds, seeds=seeds, arms=plan_arms(parent, top))
    _check_folds(parent, folds)
    return plan


def _check_folds(parent: Summary, folds: int) -> None:
    """Refuse more folds than there can be, before anything is written."""
    data = StudyFacts.from_json(parent.facts).known_data
    fold_size = len(data.validation)
    possible = 1 + len(data.train) // fold_size
    if folds > possible:
        raise UserError(
            f"--folds: {folds}: the clips beside the test split make at most {possible} sets of {fold_size}"
        )


def _create(storage: Storage, parent: Summary, plan: ConfirmationPlan) -> Ledger:
    """The parent's space as a race of full trainings, with the parent's facts."""
    space = Space.from_json(dict(parent.record.space))
    budget = dataclasses.replace(space.budget, rungs=(space.budget.max_steps,), strategy=racing.STRATEGY, max_full=0)
    race_space = dataclasses.replace(space, study=parent.record.name + SUFFIX, budget=budget, start=())
    facts = {key: value for key, value in parent.facts.items() if not key.startswith("entry:")}
    return study.create(
        storage,
        race_space,
        seed=parent.record.seed,
        trials=len(plan.arms) * race_reference.planned_rounds(len(plan.arms) - 1, plan.seeds),
        version=__version__,
        facts={**facts, CONFIRMS: plan.to_json()},
    )


def plan_arms(parent: Summary, top: int) -> tuple[ArmPlan, ...]:
    """The default recipe, then the `top` leaders of the search; raises UserError where there is no leader yet."""
    default = _default_arm(parent)
    scored = [
        trial
        for trial in parent.history
        if trial.rungs and trial.failure is None and trial.params is not None and trial.origin != IMPORTED
    ]
    ranked = sorted(scored, key=lambda trial: (-trial.steps, trial.value or 0.0, trial.number))
    leaders = [trial for trial in ranked if recipe_params(trial.params or {}) != default.params][:top]
    if not leaders:
        name = parent.record.name
        raise UserError(f"{name}: only the default recipe has a result yet; `tmsearch resume {name}` continues")
    return (default, *(_arm(f"trial {trial.number}", trial) for trial in leaders))


def _arm(name: str, trial: Configuration) -> ArmPlan:
    return ArmPlan(name, params=recipe_params(trial.params or {}), drawn=dict(trial.drawn or {}), trial=trial.number)


def recipe_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that differ between the trainings of one recipe: seed and fold."""
    return {name: value for name, value in params.items() if name not in racing.REPLICATE}


def _default_arm(parent: Summary) -> ArmPlan:
    """The space's first `start` entry, what people already use; else every searched knob at its default.

    Where the learning rate is searched that is the model's recommended one; where the model is, the leader's.
    """
    name = parent.record.name
    for trial in parent.history:
        if trial.origin == "start" and trial.params is not None:
            return _arm("default", trial)
    if parent.best is None:
        raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` continues")
    space = Space.from_json(dict(parent.record.space))
    params = {**space.train, **{knob: TRAIN[knob].default for knob in space.search}}
    if "model" in space.search:
        params["model"] = (parent.best.params or {})["model"]
    if "learning_rate" in space.search:
        try:
            params["learning_rate"] = recommended_learning_rate({"model": TrainConfig.model, **params})
        except InputError as error:
            raise UserError(f"{name}: no default recipe: {error}; or put one under `start`") from None
    return ArmPlan("default", params=recipe_params(params), drawn={})


def _trainings(plan: ConfirmationPlan, base_seed: int, rounds: int) -> list[Entry]:
    """The plan's trainings round by round; the race decides which are run."""
    trainings = []
    for replicate in range(rounds):
        replicate_params = {"seed": (base_seed + 1 + replicate) % 2**31}
        if plan.folds:
            replicate_params["fold"] = replicate % plan.folds
        for arm in plan.arms:
            params = {**arm.params, **replicate_params}
            digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
            trainings.append(Entry(digest[:16], arm.name.replace(" ", "-")[:16], arm.drawn, params, "paused"))
    return trainings
