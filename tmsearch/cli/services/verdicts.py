"""What a confirmation found out: the race's trainings compared, on the validation split and once on the test split."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from search import study
from search.errors import RunError, UserError
from search.execution.child_process import ChildExitError, ChildProcess, run_job
from search.execution.messages import Failure, Tested, TestJob
from search.paths import trial_folder
from search.records import Configuration
from search.schedulers import race_reference, racing
from search.schedulers.racing import RaceState
from search.storage import ownership
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services.run_study import cache_folder
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import cost_line
from tmsearch.evaluation.comparison import (
    Contender,
    Training,
    Verdict,
    as_many,
    compare,
    interval,
    required_sample_size,
    spread,
)
from tmsearch.evaluation.scores import clip_objective
from tmsearch.trial.facts import TEST_READ, ArmPlan, StudyFacts, TestScores, test_key
from tmsearch.trial.settings import TrialSettings

Split = Literal["validation", "test"]


def race_of(summary: Summary) -> RaceState:
    """The state of a confirmation's race, by the rules that it began with."""
    return racing.race_state(summary.history, _drops_losers(summary))


def _drops_losers(summary: Summary) -> bool:
    return racing.drops_losers(summary.record.space["budget"]["strategy"])


def contenders(summary: Summary, split: Split = "validation") -> list[Contender]:
    """The default recipe, then its rivals, each with the trainings that have a result on the split."""
    facts = StudyFacts.from_json(summary.facts)
    compared = []
    for arm, arm_plan in zip(race_of(summary).arms, facts.plan.arms, strict=False):
        trainings = [_training(facts, trial, split) for trial in arm.replicates]
        scored = tuple(training for training in trainings if training is not None)
        fate = ""
        if arm.fate != "in the race":
            fate = f"{arm.fate} after {arm.rounds} of {len(arm.replicates)}"
        compared.append(Contender(arm_plan.name, scored, fate))
    return compared


def _training(facts: StudyFacts, trial: Configuration, split: Split) -> Training | None:
    params = trial.params or {}
    if split == "test":
        scores = facts.tests.get(trial.number)
        return Training(params["seed"], 0, scores.errors, scores.words) if scores else None
    fold = params.get("fold", 0)
    errors = trial.errors(trial.steps)
    words = facts.words.get(fold)
    if trial.failure is not None or errors is None or words is None:
        return None
    return Training(params["seed"], fold, tuple(errors), words)


def mean_wer(contender: Contender) -> float:
    """The mean WER of a contender's trainings, of which there must be one."""
    return sum(training.wer for training in contender.trainings) / len(contender.trainings)


def verdict(summary: Summary, split: Split = "validation") -> Verdict | None:
    """The best contender that is still in the race, else the best of all, against the default recipe.

    None where the default recipe or all others have no training to compare.
    """
    default, *rivals = contenders(summary, split)
    race = race_of(summary)
    adjusted = None
    if split == "test":
        level = race_reference.ALPHA  # the test split is looked at once
        rivals = [rival for rival in rivals if rival.trainings]  # one alone was chosen for it
    elif race.over:
        drops = _drops_losers(summary)
        planned = max(len(arm.replicates) for arm in race.arms)
        level = racing.level(race.rounds, planned, drops)
        if drops:
            reference = race_reference.reference(len(race.arms) - 1, planned)
            adjusted = functools.partial(reference.adjusted, rounds=race.rounds)
    else:
        level = 0.0  # between the race's own looks nothing may be called significant
    objective = summary.record.objective
    if split == "test":
        objective = clip_objective(objective)
    return compare(default, rivals, level, adjusted, split=split, objective=objective)


@dataclass(frozen=True)
class Decision:
    """What report, notes, best, export and card say of a confirmation: the recipe to take, and why."""

    arm: ArmPlan
    trainings: tuple[Configuration, ...]  # the confirmation's own, of this recipe
    reason: str

    @property
    def subject(self) -> str:
        """The recipe in words: the default recipe need not be a trial of the search."""
        if self.arm.name != "default":
            return self.arm.name
        return "the default recipe" + ("" if self.arm.trial is None else f" (trial {self.arm.trial})")


def decide(confirmed: Summary) -> Decision | None:
    """The winner where it is proven to be better, else the default recipe; None as long as there is no verdict."""
    race = race_of(confirmed)
    result = verdict(confirmed) if race.over else None
    if result is None:
        return None
    name = result.winner.name if result.is_significant else result.default.name
    arms = StudyFacts.from_json(confirmed.facts).plan.arms
    index = [arm.name for arm in arms].index(name)
    return Decision(arms[index], race.arms[index].replicates, result.short_sentence())


def verdict_lines(summary: Summary) -> list[str]:
    """Mean, interval and spread of each recipe, then the verdict in a sentence."""
    compared = contenders(summary)
    trained = sum(bool(trial.rungs) for trial in summary.history)
    lines = [f"{summary.record.name}: {trained} trainings; mean {summary.record.measure}, 95 %, spread of seeds:"]
    lines += [_contender_line(contender, compared) for contender in compared]
    race = race_of(summary)
    if not race.over:
        return [*lines, f"not known yet: {len(race.due)} trainings of round {race.rounds + 1} are to come"]
    result = verdict(summary)
    if result is None:
        return [*lines, "no recipe can be compared: the default one or every contender failed"]
    lines += [result.sentence(), result.cross_check()]
    if not result.is_significant:
        lines.append(required_sample_size(result, _trainings_with(summary)))
    parent = StudyFacts.from_json(summary.facts).plan.of
    decision = decide(summary)
    assert decision is not None
    lines.append(f"next: tmsearch export {parent} -o best.yaml (takes {decision.subject})")
    data = StudyFacts.from_json(summary.facts).data
    if data is not None and data.test:
        lines.append(f"or: tmsearch confirm {parent} --test (reads the locked test split, once)")
    return lines


def closing_lines(summary: Summary, price: float | None = None) -> list[str]:
    """A confirmation's last lines: what it cost, where a price is known, and the verdict."""
    cost = [] if price is None else [cost_line(summary, price)]
    return [*cost, *verdict_lines(summary)]


def _trainings_with(summary: Summary) -> Callable[[int], int]:
    """From `--seeds` to the trainings of the default recipe in this confirmation."""
    if not _drops_losers(summary):
        return as_many
    contenders = len(StudyFacts.from_json(summary.facts).plan.arms) - 1
    return functools.partial(race_reference.planned_rounds, contenders)


def _contender_line(contender: Contender, compared: Sequence[Contender]) -> str:
    if not contender.trainings:
        fate = f"; {contender.fate}" if contender.fate else ""
        return f"  {contender.name:<10} no training{fate}"
    deviation = spread(contender)
    shown_deviation = "" if deviation is None else f"sd {deviation:.4f}"
    rates = " ".join(f"{training.wer:.3f}" for training in contender.trainings)
    line = (
        f"  {contender.name:<10} {mean_wer(contender):.3f}"
        f"{intervals.bracketed(interval(contender, compared)):<15} {shown_deviation}  ({rates})  {contender.fate}"
    )
    return line.rstrip()


def read_test_split(ledger: Ledger, child: ChildProcess, say: Callable[[str], None]) -> None:
    """Score the winner's and the default's models on the locked test split, once for all, and say the verdict.

    Raises:
        UserError: the confirmation has no verdict yet.
        RunError: a model could not be scored.
    """
    summary = study.summarize(ledger)
    result = verdict(summary)
    race = race_of(summary)
    if result is None or not race.over:
        raise UserError(f"{ledger.study}: --test: the confirmation has no answer yet; finish it first")
    facts = StudyFacts.from_json(summary.facts)
    names = [arm.name for arm in facts.plan.arms]
    arms = dict(zip(names, race.arms, strict=False))
    _record_reading(ledger, facts, say)
    for name in (result.default.name, result.winner.name):
        for trial in arms[name].replicates:
            if trial.rungs and trial.number not in facts.tests:
                scores = _score(ledger, summary, child, trial)
                ledger.add_fact(test_key(trial.number), scores.to_json())
    test_result = verdict(study.summarize(ledger), "test")
    assert test_result is not None
    say(test_result.sentence())
    say(test_result.cross_check())


def _record_reading(ledger: Ledger, facts: StudyFacts, say: Callable[[str], None]) -> None:
    """Record the day before anything is scored: once the split may have been seen it counts as read."""
    clips = len(facts.known_data.test)
    if facts.test_read is not None:
        say(f"the locked test split, {clips} clips, was already read on {facts.test_read}; its result is kept")
        return
    ledger.add_fact(TEST_READ, datetime.datetime.now(datetime.UTC).date().isoformat())
    say(f"the locked test split, {clips} clips, is read now; to choose by it would use it up")


def _score(ledger: Ledger, summary: Summary, child: ChildProcess, trial: Configuration) -> TestScores:
    """Let the training process score a trial's weights on the test split."""
    record = summary.record
    settings = TrialSettings(
        data=dict(record.space["data"]),
        max_steps=record.space["budget"]["max_steps"],
        threads=StudyFacts.from_json(summary.facts).known_threads,
        cache=str(cache_folder()),
        objective=clip_objective(record.objective),
    )
    job = TestJob(
        params=trial.params or {},
        seed=record.seed,
        folder=str(trial_folder(ownership.checked_folder(ledger), trial.number)),
        facts=summary.facts,
        settings=settings.to_json(),
    )
    try:
        answer = run_job(child, job)
    except ChildExitError as error:
        raise RunError(f"trial {trial.number} on the test split: the process ended: {error}") from None
    if isinstance(answer, Tested):
        return TestScores.from_json(answer.scores)
    reason = answer.reason if isinstance(answer, Failure) else f"unexpected answer {answer}"
    raise RunError(f"trial {trial.number} on the test split: {reason}")
