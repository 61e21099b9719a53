"""What a confirmation found out: the race's trainings compared, on the validation split and once on the test split."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from search import study
from search.errors import RunError, UserError
from search.execution.child_process import Child, ChildDied, each_event
from search.records import Configuration
from search.schedulers import racing
from search.schedulers.racing import CONFIRMS
from search.storage.claims import Ledger
from search.study import Summary, trial_folder
from tmsearch.cli.services.run_study import cache_folder
from tmsearch.cli.view import intervals
from tmsearch.evaluation.comparison import Recipe, Training, Verdict, compare, interval, needed, spread

TEST_READ = "test_read"


def recipes(summary: Summary, place: str = "validation") -> list[Recipe]:
    """The default recipe and the contenders with the trainings that have a result on the validation or test split."""
    plan, found = summary.facts[CONFIRMS], []
    for arm, planned in zip(racing.standing(summary.history).arms, plan["arms"], strict=False):
        trainings = [_training(summary.facts, one, place) for one in arm.replicates]
        fate = "" if arm.fate == "in the race" else f"{arm.fate} after {arm.rounds} of {len(arm.replicates)}"
        found.append(Recipe(planned["name"], tuple(one for one in trainings if one is not None), fate))
    return found


def _training(facts: Mapping[str, Any], one: Configuration, place: str) -> Training | None:
    params = one.params or {}
    if place == "test":
        tested = facts.get(_test_key(one))
        return Training(params["seed"], 0, tuple(tested["errors"]), tuple(tested["words"])) if tested else None
    fold = params.get("fold", 0)
    errors, words = one.errors(one.steps), intervals.words_of(facts, fold)
    if one.failure is not None or errors is None or words is None:
        return None
    return Training(params["seed"], fold, tuple(errors), tuple(words))


def verdict(summary: Summary, place: str = "validation") -> Verdict | None:
    """The best contender that is still in the race, else the best of all, against the default recipe."""
    default, *contenders = recipes(summary, place)
    where = racing.standing(summary.history)
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
    where = racing.standing(summary.history)
    if not where.over:
        return [*printed, f"not known yet: {len(where.due)} trainings of round {where.rounds + 1} are to come"]
    said = verdict(summary)
    if said is None:
        return [*printed, "no recipe can be compared: the default one or every contender failed"]
    printed += [said.sentence(), said.cross_check()]
    if not said.told_apart:
        printed.append(needed(said))
    return [*printed, *_next(summary)]


def _line(one: Recipe, found: Sequence[Recipe]) -> str:
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
    parent = summary.facts[CONFIRMS]["of"]
    return [f"next: tmsearch export {parent} -o best.yaml (takes the winner); tmsearch confirm {parent} --test, once"]


def _test_key(one: Configuration) -> str:
    return f"test:{one.number}"


def test(ledger: Ledger, child: Child) -> None:
    """Score the winner's and the default's models on the locked test split, once for all; print what came out."""
    summary = study.summarise(ledger)
    said = verdict(summary)
    if said is None or not racing.standing(summary.history).over:
        raise UserError(f"{ledger.study}: --test: the confirmation has no answer yet; go on with it first")
    names = [one["name"] for one in summary.facts[CONFIRMS]["arms"]]
    arms = dict(zip(names, racing.standing(summary.history).arms, strict=False))
    wanted = [one for name in (said.default.name, said.winner.name) for one in arms[name].replicates if one.rungs]
    clips = len(summary.facts["data"]["split"]["test"])
    read = summary.facts.get(TEST_READ)
    if read is None:
        read = datetime.datetime.now(datetime.UTC).date().isoformat()
        ledger.add_fact(TEST_READ, read)  # first of all: once it may have been seen it has been read
        print(f"the locked test split, {clips} clips, is read now; to choose by it would use it up", flush=True)
    else:
        print(f"the locked test split, {clips} clips, has been read already, on {read}; what it said is kept")
    for one in wanted:
        if _test_key(one) not in summary.facts:
            ledger.add_fact(_test_key(one), _scored(ledger, summary, child, one))
    summary = study.summarise(ledger)
    on_test = verdict(summary, "test")
    assert on_test is not None
    print("\n".join([on_test.sentence(), on_test.cross_check()]))


def _scored(ledger: Ledger, summary: Summary, child: Child, one: Configuration) -> dict[str, Any]:
    folder = study.study_folder(ledger.storage, summary.record.name)
    job = {
        "job": "test",
        "data": dict(summary.record.space["data"]),
        "max_steps": summary.record.space["budget"]["max_steps"],
        "threads": summary.facts["threads"],
        "cache": str(cache_folder()),
        "params": dict(one.params or {}),
        "seed": summary.record.seed,
        "folder": str(trial_folder(folder, one.number)),
        "facts": summary.facts,
    }
    try:
        said = each_event(child, job, lambda event: None)
    except ChildDied as death:
        raise RunError(f"trial {one.number} on the test split: the process ended: {death}") from None
    if said.get("event") != "tested":
        raise RunError(f"trial {one.number} on the test split: {said.get('reason')}")
    return {"errors": said["errors"], "words": said["words"], "wer_raw": said["wer_raw"]}
