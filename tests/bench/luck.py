"""Why the best of twenty looks better than it is: the two pictures of search/best_of_twenty.md, and its figures.

    .venv/bin/python tests/bench/luck.py                # draws into studies/pictures, and prints the figures

Twenty trainings of one recipe are drawn from the recorded ones of studies/replay/seeds/*.jsonl, without repetition, as
if they were twenty configurations of a search. Nothing differs but the seed, so whatever the best of them is ahead by
is luck. "Again" is another training of the same recipe, of those that were not drawn.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import sure

CONFIGURATIONS = 20
SEARCHES = 2000
SEARCHES_A_POINT = 500
_INK = "#334155"
_LUCK = "#c2410c"
_TRUTH = "#0369a1"


@dataclass(frozen=True)
class Luck:
    """Searches among equals, all on the same clips.

    Attributes:
        name: Of the recorded table.
        clips: Validation clips.
        mean: WER of the recipe, over all its trainings.
        rates: WER of each training of the first search [configurations].
        best: WER of the best of each search [searches].
        again: WER of the same recipe trained again, by search [searches].
    """

    name: str
    clips: int
    mean: float
    rates: np.ndarray
    best: np.ndarray
    again: np.ndarray

    @property
    def advantage(self) -> float:
        """How much better than the recipe is the best looks, on average, as a share of the WER."""
        return float(1 - self.best.mean() / self.mean)


def simulated(
    table: sure.Table,
    clips: int | None = None,
    searches: int = SEARCHES,
    seed: int = 0,
    configurations: int = CONFIGURATIONS,
) -> Luck:
    """`searches` searches among trainings of one recipe, scored on `clips` of the table's; None: on all."""
    rng = np.random.default_rng(seed)
    trainings, recorded = table.errors.shape
    best = np.empty(searches)
    again = np.empty(searches)
    first = np.empty(0)
    for number in range(searches):
        heard = rng.choice(recorded, clips or recorded, replace=False)
        order = rng.permutation(trainings)
        # Relative to all trainings on these clips, so that easy and hard clips are told apart from luck.
        rates = table.errors[order][:, heard].sum(axis=1)  # [trainings]
        rates = rates / rates.mean() * table.errors.sum() / (trainings * table.words.sum())
        best[number] = rates[:configurations].min()
        again[number] = rates[configurations]
        if not number:
            first = rates[:configurations]
    mean = table.errors.sum() / (trainings * table.words.sum())
    return Luck(table.name, clips or recorded, float(mean), first, best, again)


def figures() -> dict[str, str]:
    """What the page says, as it says it."""
    tiny, demo = (sure.read(path) for path in sure.TABLES)
    whole = simulated(tiny)
    return {
        "tiny": f"{whole.advantage:.1%}",
        "tiny, 48 clips": f"{simulated(tiny, 48).advantage:.1%}",
        "demo": f"{simulated(demo).advantage:.1%}",
        "mean": f"{whole.mean:.3f}",
        "first best": f"{whole.rates.min():.3f}",
        "first advantage": f"{1 - whole.rates.min() / whole.mean:.0%}",
        "again": f"{whole.again.mean():.3f}",
    }


def draw(folder: Path) -> list[Path]:
    """Draws both pictures into `folder`; returns their files."""
    from matplotlib import rc_context

    tiny = simulated(sure.read(sure.TABLES[0]))
    files = [folder / "luck-one-search.svg", folder / "luck-more-tries.svg"]
    # The same picture from the same figures: no date, no random ids; text stays text.
    with rc_context({"svg.hashsalt": "luck", "svg.fonttype": "none", "font.size": 11, "axes.edgecolor": _INK}):
        _one_search(tiny, files[0])
        _more_tries(files[1])
    return files


def _one_search(luck: Luck, file: Path) -> None:
    figure, axes = _axes("One recipe, twenty seeds: nothing differs but luck")
    numbers = np.arange(1, CONFIGURATIONS + 1)
    winner = int(luck.rates.argmin())
    others = numbers - 1 != winner
    axes.axhline(luck.mean, color=_TRUTH)
    axes.scatter(numbers[others], luck.rates[others], color=_INK, zorder=3)
    axes.scatter(numbers[winner], luck.rates[winner], color=_LUCK, s=90, zorder=3)
    axes.annotate(f"what the recipe is worth: {luck.mean:.3f}", (1, luck.mean), (0, 5), **_TEXT, color=_TRUTH)
    share = 1 - luck.rates[winner] / luck.mean
    label = f'"best of 20": {luck.rates[winner]:.3f}, {share:.0%} better'
    axes.annotate(label, (winner + 1, luck.rates[winner]), (10, -4), **_TEXT, color=_LUCK)
    axes.set(xlabel="configuration", ylabel="WER", xticks=[1, 5, 10, 15, 20])
    figure.savefig(file, metadata={"Date": None})


def _more_tries(file: Path) -> None:
    figure, axes = _axes("The more is tried, the better the best looks")
    tiny, demo = (sure.read(path) for path in sure.TABLES)
    tries = np.arange(1, len(tiny.errors))
    curves = (
        ("48 clips, tiny.en", tiny, 48, _LUCK, -4),
        ("80 clips, the demo", demo, None, _INK, 1),
        ("120 clips, tiny.en", tiny, None, "#b45309", -9),
    )
    for label, table, clips, colour, lowered in curves:
        ahead = [100 * simulated(table, clips, SEARCHES_A_POINT, configurations=count).advantage for count in tries]
        axes.plot(tries, ahead, color=colour)
        axes.annotate(label, (tries[-1], ahead[-1]), (6, lowered), **_TEXT, color=colour)
    axes.plot(tries, np.zeros(len(tries)), color=_TRUTH)
    axes.annotate("the winner, trained again", (tries[-1], 0), (6, -4), **_TEXT, color=_TRUTH)
    axes.axvline(CONFIGURATIONS, color=_INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="configurations tried, all of them equal", ylabel="% fewer errors, as it looks", xlim=(1, 33))
    axes.set(xticks=[1, 5, 10, 15, 20])
    figure.savefig(file, metadata={"Date": None})


_TEXT = {"xycoords": "data", "textcoords": "offset points"}


def _axes(title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, color=_INK, fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "studies/pictures")
    for file in draw(parser.parse_args().out):
        print(f"picture: {file}")
    for name, value in figures().items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
