"""What a confirmation found out: the race's trainings compared, on the validation split and once on the test split."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from search import study
from search.errors import RunError, UserError
from search.execution.child_process import ChildExitError, ChildProcess, run_job
from search.execution.messages import Failure, Tested, TestJob
from search.paths import study_folder, trial_folder
from search.records import Configuration
from search.schedulers import racing
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services.run_study import cache_folder
from tmsearch.cli.view import intervals
from tmsearch.evaluation.comparison import Contender, Training, Verdict, compare, interval, required_sample_size, spread
from tmsearch.trial.facts import TEST_READ, StudyFacts, TestScores, test_key
from tmsearch.trial.settings import TrialSettings


def recipes(summary: Summary, place: str = "validation") -> list[Contender]:
    """The default recipe and the contenders with the trainings that have a result on the validation or test split."""
    facts, found = StudyFacts.from_json(summary.facts), []
    for arm, planned in zip(racing.race_state(summary.history).arms, facts.plan.arms, strict=False):
        trainings = [_training(facts, one, place) for one in arm.replicates]
        fate = "" if arm.fate == "in the race" else f"{arm.fate} after {arm.rounds} of {len(arm.replicates)}"
        found.append(Contender(planned.name, tuple(one for one in trainings if one is not None), fate))
    return found


def _training(facts: StudyFacts, one: Configuration, place: str) -> Training | None:
    params = one.params or {}
    if place == "test":
        tested = facts.tests.get(one.number)
        return Training(params["seed"], 0, tested.errors, tested.words) if tested else None
    fold = params.get("fold", 0)
    errors, words = one.errors(one.steps), facts.words.get(fold)
    if one.failure is not None or errors is None or words is None:
        return None
    return Training(params["seed"], fold, tuple(errors), words)


def verdict(summary: Summary, place: str = "validation") -> Verdict | None:
    """The best contender that is still in the race, else the best of all, against the default recipe."""
    default, *contenders = recipes(summary, place)
    where = racing.race_state(summary.history)
    planned = max(len(arm.replicates) for arm in where.arms)
    # Unfinished: no look of its own is due, so nothing can be told yet. The test split is looked at once.
    level = racing.ALPHA if place == "test" else racing.level(where.rounds, planned) if where.over else 0.0
    if place == "test":  # one contender alone was chosen for it
        contenders = [one for one in contenders if one.trainings]
    return compare(default, contenders, level, split=place)


def lines(summary: Summary) -> list[str]:
    """Mean, interval and spread of each recipe, then the sentence."""
    name, found = summary.record.name, recipes(summary)
    trained = sum(bool(one.rungs) for one in summary.history)
    printed = [f"{name}: {trained} trainings; mean WER, 95 %, spread of seeds:"]
    printed += [_line(one, found) for one in found]
    where = racing.race_state(summary.history)
    if not where.over:
        return [*printed, f"not known yet: {len(where.due)} trainings of round {where.rounds + 1} are to come"]
    said = verdict(summary)
    if said is None:
        return [*printed, "no recipe can be compared: the default one or every contender failed"]
    printed += [said.sentence(), said.cross_check()]
    if not said.is_significant:
        printed.append(required_sample_size(said))
    return [*printed, *_next(summary)]


def _line(one: Contender, found: Sequence[Contender]) -> str:
    if not one.trainings:
        return f"  {one.name:<10} no training{f'; {one.fate}' if one.fate else ''}"
    mean = sum(each.wer for each in one.trainings) / len(one.trainings)
    sd = spread(one)
    rates = " ".join(f"{each.wer:.3f}" for each in one.trainings)
    return (
        f"  {one.name:<10} {mean:.3f}{intervals.bracketed(interval(one, found)):<15} "
        f"{'' if sd is None else f'sd {sd:.4f}'}  ({rates}){f'  {one.fate}' if one.fate else ''}"
    ).rstrip()


def _next(summary: Summary) -> list[str]:
    parent = StudyFacts.from_json(summary.facts).plan.of
    return [f"next: tmsearch export {parent} -o best.yaml (takes the winner); tmsearch confirm {parent} --test, once"]


def test(ledger: Ledger, child: ChildProcess) -> None:
    """Score the winner's and the default's models on the locked test split, once for all; print what came out."""
    summary = study.summarize(ledger)
    said = verdict(summary)
    if said is None or not racing.race_state(summary.history).over:
        raise UserError(f"{ledger.study}: --test: the confirmation has no answer yet; go on with it first")
    facts = StudyFacts.from_json(summary.facts)
    names = [arm.name for arm in facts.plan.arms]
    arms = dict(zip(names, racing.race_state(summary.history).arms, strict=False))
    wanted = [one for name in (said.default.name, said.winner.name) for one in arms[name].replicates if one.rungs]
    clips = len(facts.known_data.test)
    read = facts.test_read
    if read is None:
        read = datetime.datetime.now(datetime.UTC).date().isoformat()
        ledger.add_fact(TEST_READ, read)  # first of all: once it may have been seen it has been read
        print(f"the locked test split, {clips} clips, is read now; to choose by it would use it up", flush=True)
    else:
        print(f"the locked test split, {clips} clips, has been read already, on {read}; what it said is kept")
    for one in wanted:
        if one.number not in facts.tests:
            ledger.add_fact(test_key(one.number), _scored(ledger, summary, child, one).to_json())
    summary = study.summarize(ledger)
    on_test = verdict(summary, "test")
    assert on_test is not None
    print("\n".join([on_test.sentence(), on_test.cross_check()]))


def _scored(ledger: Ledger, summary: Summary, child: ChildProcess, one: Configuration) -> TestScores:
    folder = study_folder(ledger.storage.folder, summary.record.name)
    settings = TrialSettings(
        data=dict(summary.record.space["data"]),
        max_steps=summary.record.space["budget"]["max_steps"],
        threads=StudyFacts.from_json(summary.facts).known_threads,
        cache=str(cache_folder()),
    )
    job = TestJob(
        params=one.params or {},
        seed=summary.record.seed,
        folder=str(trial_folder(folder, one.number)),
        facts=summary.facts,
        settings=settings.to_json(),
    )
    try:
        answer = run_job(child, job)
    except ChildExitError as death:
        raise RunError(f"trial {one.number} on the test split: the process ended: {death}") from None
    if isinstance(answer, Tested):
        return TestScores.from_json(answer.scores)
    reason = answer.reason if isinstance(answer, Failure) else f"unexpected answer {answer}"
    raise RunError(f"trial {one.number} on the test split: {reason}")
