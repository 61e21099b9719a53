"""How often confirm is wrong and how often it finds: null searches, power and coverage, simulated from recorded runs.

    .venv/bin/python tests/bench/sure.py                      # 500 searches, 1,000 sets; some minutes
    .venv/bin/python tests/bench/sure.py --record sqlite:///studies/tmsearch.db tiny_seeds > seeds.jsonl

A table holds one recipe trained with many seeds: the reference words of each clip, and each training's errors by clip.
A simulated search takes trainings of it by chance and without repetition, and clips by chance with repetition. Where a
clip is drawn a second time its errors are those of another training, near in WER and in no other arm: the second draw
stands for another clip like it, on which the training has luck of its own. So seeds' spread, utterances' spread and
what both do together are the recorded ones. Whoever wins among equals is luck. A true gain takes each error of one
contender away with that probability.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.records import Configuration, Rung
from search.schedulers import racing
from tmsearch.evaluation import bootstrap, comparison
from tmsearch.evaluation.comparison import Contender, Training

ROOT = Path(__file__).parents[2]
TABLES = [ROOT / "studies/replay/seeds_tiny.jsonl", ROOT / "studies/replay/seeds_demo.jsonl"]


@dataclass(frozen=True)
class Table:
    """`errors` [trainings, clips] and `words` [clips] of one recipe."""

    name: str
    errors: np.ndarray
    words: np.ndarray


def read(path: Path) -> Table:
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Table(head["study"], np.array([row["errors"] for row in rows]), np.array(head["words"]))


def race(arms: Sequence[np.ndarray], words: np.ndarray) -> tuple[comparison.Verdict, int]:
    """What confirm makes of trainings' errors, arms [trainings, clips], the default first; and how many it trains."""
    planned, numbers = len(arms[0]), {}
    history = []
    for place in range(planned):
        for arm in range(len(arms)):
            numbers[len(history)] = arms[arm][place]
            params = {"arm": arm, "seed": place + 1}
            history.append(Configuration(len(history), f"arm {arm}", {}, params, "paused"))
    while due := racing.race_state(history).due:
        for trial in due:
            errors = numbers[trial.number]
            rung = Rung(1, errors.sum() / words.sum(), {"errors": errors.tolist()})
            history[trial.number] = Configuration(
                trial.number, trial.origin, {}, trial.params, "finished", rungs=(rung,)
            )
    where = racing.race_state(history)
    recipes = [
        Contender(
            f"arm {place}",
            tuple(
                Training(trial.params["seed"], 0, tuple(numbers[trial.number]), tuple(words))
                for trial in arm.replicates
                if trial.rungs
            ),
            "" if arm.fate == "in the race" else arm.fate,
        )
        for place, arm in enumerate(where.arms)
    ]
    verdict = comparison.compare(recipes[0], recipes[1:], racing.level(where.rounds, planned))
    assert verdict is not None
    return verdict, sum(bool(trial.rungs) for trial in history)


def searches(
    table: Table, count: int, *, clips: int, seeds: int = 3, leaders: int = 3, gain: float = 0.0, seed: int = 0
) -> list[tuple[comparison.Verdict, int]]:
    """`count` simulated confirmations; with `gain`, the first leader truly makes that share of errors fewer."""
    verdicts = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        chosen = rng.choice(table.errors.shape[1], clips)
        words = table.words[chosen]
        arms = drawn(table, rng, chosen, leaders + 1, seeds)
        arms[1] = rng.binomial(arms[1], 1 - gain)
        verdicts.append(race(arms, words))
    return verdicts


def drawn(table: Table, rng: np.random.Generator, chosen: np.ndarray, arms: int, seeds: int) -> list[np.ndarray]:
    """Errors of `arms` recipes [trainings, clips] on the `chosen` clips: of pairs of trainings near in WER."""
    by_rate = table.errors.sum(axis=1).argsort(kind="stable")
    pairs = by_rate[: len(by_rate) // 2 * 2].reshape(-1, 2)
    pairs = rng.permuted(rng.permutation(pairs)[: arms * seeds], axis=1)
    if len(pairs) < arms * seeds:
        raise ValueError(f"{table.name}: {len(by_rate)} trainings are too few for {arms} recipes with {seeds} seeds")
    copies = np.array([int((chosen[:place] == clip).sum()) for place, clip in enumerate(chosen)])
    made = table.errors[pairs[:, 0]][:, chosen]
    for copy in range(1, copies.max() + 1):
        others = np.roll(pairs[:, 1], copy - 1)  # the first of them near in WER
        made[:, copies == copy] = table.errors[others][:, chosen[copies == copy]]
    return list(made.reshape(arms, seeds, len(chosen)))


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


def report(table: Table, count: int, sets: int) -> None:
    rates = table.errors.sum(axis=1) / table.words.sum()
    clips = table.errors.shape[1]
    spread = f"WER {rates.mean():.3f}, sd {rates.std(ddof=1):.4f}"
    print(f"{table.name}: {len(rates)} trainings of one recipe, {clips} clips; {spread}")
    for number in (48, clips):
        null = searches(table, count, clips=number)
        power = searches(table, count, clips=number, gain=0.10)
        print(
            f"  {number} clips, 3 leaders, 3 seeds: {called(null):.1%} of {count} null searches call a winner, at "
            f"{trainings(null):.1f} trainings of 12; a true gain of 10 % is found in {called(power):.1%}, at "
            f"{trainings(power):.1f}"
        )
    at = clips
    quarter = max(count // 5, 1)
    most = len(rates) // 4
    alone = called(searches(table, count, clips=at, leaders=1, gain=0.10))
    seeds = least(
        lambda n: called(searches(table, quarter, clips=at, leaders=1, seeds=n, gain=0.10)), range(3, most + 1)
    )
    advice = [comparison.required_sample_size(verdict) for verdict, _ in searches(table, 5, clips=at)]
    print(
        f"  {at} clips, one leader: 3 seeds find it in {alone:.1%}; four of five take {seeds} seeds (of up to {most})"
    )
    print("  what confirm itself prints for five of these: " + "; ".join(sorted(advice)))
    for number in (30, 48, clips):
        print(
            f"  intervals of {number} clips hold the true WER in {coverage(table, sets, number):.1%} of {sets} sets, "
            f"of the mean of 3 seeds in {mean_coverage(table, sets // 2, number):.1%} of {sets // 2}"
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
    asked = parser.parse_args()
    if asked.record:
        record(*asked.record)
        return
    for path in asked.tables:
        report(read(path), asked.searches, asked.sets)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
