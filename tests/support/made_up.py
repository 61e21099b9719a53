"""A study with made-up results on a small dataset of tones, some of its texts and names hostile; nothing is trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from search import study
from search.paths import study_folder, trial_folder
from search.records import Rung
from search.storage import entries
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tests.support.audio_files import RecordedClip, tone, write_recordings
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.evaluation.scores import ClipScore, write_scores
from tmsearch.recipe import Recipe, save_recipe

RUNS = "document.title='owned'"
TEXTS = {
    f"<img src=x onerror={RUNS}>": f"<script>{RUNS}</script><img src=x onerror={RUNS}>",
    "a|b `c` [d](javascript:alert)": "| **bold** | [link](javascript:alert) `code` ~~gone~~ # head",
    "\u202ereversed": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u2066def",
    "emoji \U0001f469\u200d\U0001f467": "family \U0001f469\u200d\U0001f467 at www.example.com",
    "=cmd": '=HYPERLINK("http://example.com";"click")',
    "@sum": "@SUM(1+1)*cmd|' /C calc'!A0",
    "long": "word " * 2000,
    "quotes \"'": "he said \"no\" & she said 'yes' &lt;b&gt;",
}
SPACE = """
study: made_up
data: {dataset: DATA, validation: 8, test: 1}
budget: {max_steps: 80, rungs: [20, 40, 80]}
search:
  learning_rate: {low: 1e-6, high: 1e-2, log: true}
  model: [demo/nano, demo/micro]
start:
  - {learning_rate: 1e-5, model: demo/micro}
"""
DEFAULT = {"learning_rate": 1e-5, "model": "demo/micro"}
OTHER = {"learning_rate": 3e-4, "model": "demo/micro"}


def dataset(folder: Path) -> Path:
    clips = []
    for index, (name, text) in enumerate(TEXTS.items()):
        clips.append(RecordedClip(f"{name}.wav", text, tone(1.0 + 0.2 * index, 200.0 + 100 * index)))
    return write_recordings(folder, clips)


def scores(wrong: int) -> list[ClipScore]:
    """The first clips have `wrong` errors each, the last has none."""
    heard = [" ".join(text.split()) for text in TEXTS.values()]
    last = len(heard) - 1
    return [
        ClipScore(f"{name}.wav", text, text if index == last else f"-{text}", 0, 0, 0 if index == last else wrong, 9)
        for index, (name, text) in enumerate(zip(TEXTS, heard, strict=True))
    ]


def rung(step: int, wrong: int) -> Rung:
    found = scores(wrong)
    wer = sum(one.edits for one in found) / sum(one.words for one in found)
    more = {"wer_raw": wer, "cer": wer / 2, "train_seconds": 60.0, "eval_seconds": 5.0}
    return Rung(step, wer, {**more, "errors": [one.edits for one in found], "clips": len(found)})


def made_up(folder: Path, *, over: bool = True, name: str = "made_up") -> Ledger:
    """Trials 0 and 1 have ended, 2 failed; with `over` so has 3, else it waits, as in a study that runs."""
    data = dataset(folder / "data")
    file = folder / "space.yaml"
    file.write_text(SPACE.replace("DATA", str(data)))
    space = dataclasses.replace(load_space(str(file), [], None), study=name)
    storage = open_storage(f"sqlite:///{folder}/studies/tmsearch.db")
    split = {"train": [], "validation": [one.name for one in scores(1)], "test": []}
    kept = {"fingerprint": "f", "clips": 8, "seconds": 12.0, "longest": 2.4, "split": split, "dropped": []}
    ledger = study.create(storage, space, seed=0, trials=4, version="1", known={"data": kept, "threads": 1})
    ledger.add_fact("words:0", [9] * 8)
    ledger.add_fact("baseline:demo/micro", {"wer": 1.0, "errors": [9] * 8, "wer_raw": 1.0, "cer": 1.0, "clips": 8})
    rungs = {0: (rung(20, 6),), 1: (rung(20, 3), rung(40, 2), rung(80, 1)), 2: (), 3: (rung(20, 5),)}
    lost = ("pruned", "not promoted")
    states = {0: lost, 1: ("finished", "trained in full, 80 steps"), 2: ("failed", "out of memory")}
    states[3] = lost if over else ("paused", None)
    entries.enter(
        ledger,
        [
            entries.Entry(
                str(number),
                "start" if number == 0 else "sampled",
                DEFAULT if number == 0 else OTHER,
                DEFAULT if number == 0 else OTHER,
                states[number][0],
                rungs[number],
                states[number][1],
                "oom" if number == 2 else None,
            )
            for number in rungs
        ],
    )
    for number, results in rungs.items():
        trial = trial_folder(study_folder(storage.folder, name), number)
        recipe = Recipe(DataConfig(dataset=str(data)), TrainConfig(**(OTHER if number else DEFAULT)), 1)
        save_recipe(trial / "config.yaml", recipe)
        for result in results:
            write_scores(trial, result.step, scores(result.metrics["errors"][0]))
    return ledger
