"""How often confirm is wrong and how often it finds: null searches, power and coverage, simulated from recorded runs.

    .venv/bin/python tests/bench/sure.py                      # 500 searches, 1,000 sets; some minutes
    .venv/bin/python tests/bench/sure.py --former             # the same of races before losers were dropped
    .venv/bin/python tests/bench/sure.py studies/replay/seeds/demo_peak.jsonl --against studies/replay/seeds/demo.jsonl
    .venv/bin/python tests/bench/sure.py --record sqlite:///studies/tmsearch.db tiny_seeds > seeds.jsonl

A table holds one recipe trained with many seeds: the reference words of each clip, and each training's errors by clip.
A simulated search takes trainings and clips of it by chance and without repetition, so that the luck of each training
is the recorded one, whether clip by clip or of all clips together. Whoever wins among equals is luck. A true gain takes
each error of one contender away with that probability, or is that of another recorded recipe on the same clips.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from search.records import Configuration, Rung
from search.schedulers import race_reference, racing
from tmsearch.evaluation import bootstrap, comparison
from tmsearch.evaluation.comparison import Contender, Training

ROOT = Path(__file__).parents[2]
TABLES = [ROOT / "studies/replay/seeds/tiny.jsonl", ROOT / "studies/replay/seeds/demo.jsonl"]


@dataclass(frozen=True)
class Table:
    """`errors` [trainings, clips] and `words` [clips] of one recipe."""

    name: str
    errors: np.ndarray
    words: np.ndarray


def read(path: Path) -> Table:
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Table(head["study"], np.array([row["errors"] for row in rows]), np.array(head["words"]))


def race(
    draw: Callable[[int], np.ndarray], words: np.ndarray, leaders: int, seeds: int, drops: bool = True
) -> tuple[comparison.Verdict, int]:
    """What confirm makes of trainings' errors [clips], and how many it trains.

    Args:
        draw: The errors of the next training of an arm; 0 is the default recipe.
        words: Reference words [clips].
        leaders: Arms beside the default.
        seeds: As `--seeds` has it.
        drops: Whether the worse half of the leaders leaves after each round, as in races that begin now.
    """
    planned = race_reference.planned_rounds(leaders, seeds) if drops else seeds
    history = []
    for seed in range(1, planned + 1):
        for arm in range(leaders + 1):
            history.append(Configuration(len(history), f"arm {arm}", {}, {"arm": arm, "seed": seed}, "paused"))
    while due := racing.race_state(history, drops).due:
        for trial in due:
            errors = draw(trial.params["arm"])
            rung = Rung(1, errors.sum() / words.sum(), {"errors": errors.tolist()})
            history[trial.number] = dataclasses.replace(trial, state="finished", rungs=(rung,))
    state = racing.race_state(history, drops)
    recipes = [_contender(number, arm, words) for number, arm in enumerate(state.arms)]
    adjusted = None
    if drops:
        reference = race_reference.reference(leaders, planned)
        adjusted = functools.partial(reference.adjusted, rounds=state.rounds)
    level = racing.level(state.rounds, planned, drops)
    verdict = comparison.compare(recipes[0], recipes[1:], level, adjusted)
    assert verdict is not None
    return verdict, sum(bool(trial.rungs) for trial in history)


def _contender(number: int, arm: racing.Arm, words: np.ndarray) -> Contender:
    """An arm of the race as confirm compares it."""
    trainings = []
    for trial in arm.replicates:
        if trial.rungs:
            trainings.append(Training(trial.params["seed"], 0, tuple(trial.errors(trial.steps)), tuple(words)))
    return Contender(f"arm {number}", tuple(trainings), "" if arm.fate == "in the race" else arm.fate)


def searches(
    table: Table,
    count: int,
    *,
    clips: int,
    seeds: int = 3,
    leaders: int = 3,
    gain: float = 0.0,
    better: Table | None = None,
    drops: bool = True,
    seed: int = 0,
) -> list[tuple[comparison.Verdict, int]]:
    """`count` simulated confirmations of equal recipes, but for what `gain` or `better` says of the first leader.

    Args:
        table: The default recipe, and whatever is equal to it.
        count: Confirmations.
        clips: Of the validation split, drawn from the table's.
        seeds: As `--seeds` has it.
        leaders: Beside the default.
        gain: The first leader truly makes that share of errors fewer.
        better: The first leader's own recipe, on the same clips.
        drops: As `race` has it.
        seed: Of the draws.
    """
    verdicts = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        chosen = rng.choice(table.errors.shape[1], clips, replace=False)
        shared = iter(rng.permutation(table.errors)[:, chosen])
        own = shared if better is None else iter(rng.permutation(better.errors)[:, chosen])

        def draw(arm: int, shared=shared, own=own, rng=rng) -> np.ndarray:
            errors = next(own if arm == 1 else shared)
            return rng.binomial(errors, 1 - gain) if arm == 1 and gain else errors

        verdicts.append(race(draw, table.words[chosen], leaders, seeds, drops))
    return verdicts


def called(verdicts: Sequence[tuple[comparison.Verdict, int]]) -> float:
    return sum(verdict.is_significant for verdict, _ in verdicts) / len(verdicts)


def trainings(verdicts: Sequence[tuple[comparison.Verdict, int]]) -> float:
    return float(np.mean([count for _, count in verdicts]))


def coverage(table: Table, sets: int, clips: int, seed: int = 0) -> float:
    """How often the interval of one training's WER on `clips` clips holds its WER on all of them."""
    covered = 0
    for number in range(sets):
        rng = np.random.default_rng((seed, number, clips))
        errors = table.errors[rng.integers(len(table.errors))]
        chosen = rng.choice(len(errors), clips)
        interval = bootstrap.wer_interval(errors[chosen].tolist(), table.words[chosen].tolist())
        assert interval is not None
        covered += interval.low <= errors.sum() / table.words.sum() <= interval.high
    return covered / sets


def mean_coverage(table: Table, sets: int, clips: int, seeds: int = 3, arms: int = 4, seed: int = 0) -> float:
    """The same of a recipe's mean over seeds and utterances."""
    truth, covered = table.errors.sum() / (len(table.errors) * table.words.sum()), 0
    for number in range(sets):
        rng = np.random.default_rng((seed, number, clips, seeds))
        chosen = rng.choice(table.errors.shape[1], clips)
        words = np.tile(table.words[chosen], (seeds, 1)).astype(float)
        runs = [
            bootstrap.ErrorCounts(table.errors[rng.choice(len(table.errors), seeds)][:, chosen].astype(float), words)
            for _ in range(arms)
        ]
        interval = bootstrap.mean_interval(runs[0], runs)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    return covered / sets


def least(rate: Callable[[int], float], candidates: Sequence[int], wanted: float = 0.8) -> int | None:
    """The first of `candidates` with which `rate` reaches `wanted`."""
    return next((candidate for candidate in candidates if rate(candidate) >= wanted), None)


def common_share(table: Table) -> tuple[float, tuple[float, float]]:
    """The share of the variance between trainings that is not clip by clip, and its 95 % interval.

    Had each training its luck clip by clip alone, the variance of its WER would be the sum of those by clip.
    """
    total = table.words.sum()
    deviations = table.errors - table.errors.mean(axis=0)
    trainings, clips = deviations.shape
    by_clip = deviations.var(axis=1, ddof=1).sum() / (trainings - 1) * clips / total**2
    ratio = (table.errors.sum(axis=1) / total).var(ddof=1) / by_clip
    freedom = trainings - 1
    low, high = (1 - bound / (ratio * freedom) for bound in chi2.ppf([0.975, 0.025], freedom))
    return 1 - 1 / ratio, (low, high)


def report(table: Table, count: int, sets: int, drops: bool) -> None:
    rates = table.errors.sum(axis=1) / table.words.sum()
    clips = table.errors.shape[1]
    spread = f"WER {rates.mean():.3f}, sd {rates.std(ddof=1):.4f}"
    print(f"{table.name}: {len(rates)} trainings of one recipe, {clips} clips; {spread}")
    share, (low, high) = common_share(table)
    print(f"  of that variance {share:.0%} [{low:.0%}, {high:.0%}] is common to all clips; the rest is clip by clip")
    for number in (48, clips):
        null = searches(table, count, clips=number, drops=drops)
        power = searches(table, count, clips=number, gain=0.10, drops=drops)
        print(
            f"  {number} clips, 3 leaders, 3 seeds: {called(null):.1%} of {count} null searches call a winner, at "
            f"{trainings(null):.1f} trainings; a true gain of 10 % is found in {called(power):.1%}, at "
            f"{trainings(power):.1f}"
        )
    at = clips
    quarter = max(count // 5, 1)
    most = len(rates) // 2
    alone = called(searches(table, count, clips=at, leaders=1, gain=0.10, drops=drops))

    def power_with(seeds: int) -> float:
        return called(searches(table, quarter, clips=at, leaders=1, seeds=seeds, gain=0.10, drops=drops))

    seeds = least(power_with, range(3, most + 1))
    advice = [comparison.required_sample_size(verdict) for verdict, _ in searches(table, 5, clips=at, drops=drops)]
    print(
        f"  {at} clips, one leader: 3 seeds find it in {alone:.1%}; four of five take {seeds} seeds (of up to {most})"
    )
    print("  what confirm itself prints for five of these: " + "; ".join(sorted(advice)))
    for number in (30, 48, clips):
        print(
            f"  intervals of {number} clips hold the true WER in {coverage(table, sets, number):.1%} of {sets} sets, "
            f"of the mean of 3 seeds in {mean_coverage(table, sets // 2, number):.1%} of {sets // 2}"
        )


def report_pair(default: Table, better: Table, count: int, drops: bool) -> None:
    """How often another recorded recipe is found to be better than `default`, beside two leaders that equal it."""
    clips = len(default.words)
    rates = [table.errors.sum() / (len(table.errors) * table.words.sum()) for table in (default, better)]
    verdicts = searches(default, count, clips=clips, better=better, drops=drops)
    print(
        f"{better.name} beside {default.name}: WER {rates[1]:.3f} for {rates[0]:.3f}, {1 - rates[1] / rates[0]:.1%} "
        f"fewer errors; found in {called(verdicts):.1%} of {count}, at {trainings(verdicts):.1f} trainings"
    )


def record(url: str, study: str) -> None:
    """A finished study of one recipe and many seeds, as a table."""
    from search.storage.database import open_storage
    from search.study import open_study, summarize

    summary = summarize(open_study(open_storage(url), study))
    recipe = {**summary.record.space["train"], "max_steps": summary.record.space["budget"]["max_steps"]}
    recipe["model"] = Path(recipe["model"]).name if recipe["model"].startswith("/") else recipe["model"]
    print(json.dumps({"study": study, "recipe": recipe, "words": summary.facts["words:0"]}))
    for trial in summary.history:
        if trial.state == "finished":
            print(json.dumps({"seed": trial.params["seed"], "errors": trial.errors(trial.steps)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, default=TABLES)
    parser.add_argument("--searches", type=int, default=500)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--record", nargs=2, metavar=("URL", "STUDY"))
    parser.add_argument("--former", action="store_true", help="races as they were before losers were dropped")
    parser.add_argument("--against", type=Path, help="a default recipe's table, which the tables' recipes are to beat")
    asked = parser.parse_args()
    if asked.record:
        record(*asked.record)
        return
    for path in asked.tables:
        if asked.against:
            report_pair(read(asked.against), read(path), asked.searches, not asked.former)
        else:
            report(read(path), asked.searches, asked.sets, not asked.former)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
