"""A long study that nobody trained: thousands of configurations with a result at every rung, entered in one go.

    ledger = large_study(folder, LargePlan(configurations=2000))

Its space has six knobs and eight rungs. The values are a function of the knobs and a little noise; the errors by clip
add up to them. Only the leader has a table of clips on disk, which is the one that a report reads.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search import study
from search.paths import study_folder, trial_folder
from search.records import Rung, best_configuration
from search.storage import entries, ownership
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tests.support.audio_files import RecordedClip, voice, write_recordings
from tests.support.study_builder import WORDS, data_fact
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import DataConfig
from tmsearch.data import corpus
from tmsearch.evaluation.scores import ClipScore, write_scores

NAME = "large"
RUNGS = tuple(range(100, 801, 100))
MODELS = ("openai/whisper-small", "openai/whisper-large-v3")
WORDS_PER_CLIP = 8
SPACE = """
study: large
data: {dataset: DATASET, validation: VALIDATION, test: 1}
budget: {max_steps: 800, rungs: RUNGS}
search:
  model: [openai/whisper-small, openai/whisper-large-v3]
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  warmup_steps: {low: 0, high: 100, step: 10}
  normalize_audio: [true, false]
  label_smoothing: {low: 0.0, high: 0.15}
  spec_time_masks: [0, 2]
"""


@dataclass(frozen=True)
class LargePlan:
    """What `large_study` makes."""

    configurations: int = 2000
    clips: int = 500  # of validation
    waiting: int = 40  # the last so many configurations are paused before the last rung; the others have finished
    recordings: bool = False  # whether the clips are there to be heard: a report needs them, and takes its time


def large_study(folder: Path, plan: LargePlan) -> Ledger:
    """The study in `folder`/studies/tmsearch.db; 10 configurations more are asked for than it has."""
    dataset = folder / "clips"
    texts = _texts(plan)
    if plan.recordings:
        _write_recordings(dataset, texts)
    text = SPACE.replace("DATASET", json.dumps(str(dataset)))
    space_file = folder / "space.yaml"
    space_file.write_text(text.replace("VALIDATION", str(plan.clips)).replace("RUNGS", str(list(RUNGS))), "utf-8")
    space = load_space(str(space_file), [], None)
    fingerprint = corpus.load(DataConfig(**space.data)).fingerprint if plan.recordings else "none"
    validation = list(texts)[: plan.clips]
    split = {"train": list(texts)[plan.clips :], "validation": validation, "test": []}
    facts: dict[str, Any] = {
        "threads": 1,
        "data": data_fact(fingerprint, len(texts), split),
        "words:0": [WORDS_PER_CLIP] * plan.clips,
    }
    for model in MODELS:
        facts[f"baseline:{model}"] = {"wer": 0.75, "errors": [WORDS_PER_CLIP * 3 // 4] * plan.clips}
    storage = open_storage(f"sqlite:///{folder}/studies/tmsearch.db")
    ledger = study.create(storage, space, seed=0, trials=plan.configurations + 10, version="test", facts=facts)
    entries.enter(ledger, list(_entries(plan)))
    _write_tables(ledger, texts, validation)
    return ledger


def _texts(plan: LargePlan) -> dict[str, str]:
    chance = random.Random(1)
    count = plan.clips + 40
    return {f"{index:04d}.flac": " ".join(chance.choices(WORDS, k=WORDS_PER_CLIP)) for index in range(count)}


def _write_recordings(dataset: Path, texts: Mapping[str, str]) -> None:
    chance = random.Random(2)
    noise = np.random.default_rng(2)
    clips = []
    for name, text in texts.items():
        samples = voice(chance.uniform(2.0, 4.0), loudness=chance.uniform(0.1, 2.0), noise=noise)
        clips.append(RecordedClip(name, text, samples.clip(-1, 1).astype(np.float32), container="FLAC"))
    write_recordings(dataset, clips)


def _entries(plan: LargePlan) -> Iterator[entries.Entry]:
    """Configurations with their curves; the values fall along the rungs towards what the knobs give."""
    chance = random.Random(3)
    counts = np.random.default_rng(3)
    for number in range(plan.configurations):
        params = params_of(chance)
        distance = abs(math.log10(params["learning_rate"]) + 4.5) + 0.3 * params["model"].endswith("small")
        rate = min(0.9, 0.15 + 0.15 * distance + params["label_smoothing"] + chance.gauss(0.0, 0.01))
        is_waiting = number >= plan.configurations - plan.waiting
        reached = RUNGS[:-1] if is_waiting else RUNGS
        rungs = []
        for step in reached:
            mean = WORDS_PER_CLIP * max(0.02, rate) * (1 + 50 / step)
            errors = counts.poisson(mean, plan.clips).clip(max=WORDS_PER_CLIP).tolist()  # [clips]
            wer = sum(errors) / (WORDS_PER_CLIP * plan.clips)
            costs = {"train_seconds": 50.0, "eval_seconds": 5.0}
            metrics = {"wer_raw": wer, "cer": wer / 2, **costs, "errors": errors, "clips": plan.clips}
            rungs.append(Rung(step, wer, metrics))
        state, reason = ("paused", None) if is_waiting else ("finished", "trained in full, 800 steps")
        origin = "start" if number == 0 else "sampled"
        yield entries.Entry(str(number), origin, params, params, state, tuple(rungs), reason)  # type: ignore[arg-type]


def params_of(chance: random.Random) -> dict[str, Any]:
    """Parameters drawn at random from the space."""
    return {
        "model": chance.choice(MODELS),
        "learning_rate": 10 ** chance.uniform(-6, -3),
        "warmup_steps": chance.randrange(0, 101, 10),
        "normalize_audio": chance.random() < 0.5,
        "label_smoothing": chance.uniform(0.0, 0.15),
        "spec_time_masks": chance.choice((0, 2)),
    }


def _write_tables(ledger: Ledger, texts: Mapping[str, str], validation: list[str]) -> None:
    """The leader's table of clips and the untrained models'."""
    leader = best_configuration(ledger.history())
    assert leader is not None
    folder = study_folder(ledger.storage.folder, ledger.study)
    errors = leader.errors(leader.steps)
    assert errors is not None
    scores = [_score(name, texts[name], count) for name, count in zip(validation, errors, strict=True)]
    write_scores(trial_folder(folder, leader.number), leader.steps, scores)
    for model in MODELS:
        untrained = [_score(name, texts[name], WORDS_PER_CLIP * 3 // 4) for name in validation]
        write_scores(folder / "baselines" / model.replace("/", "--"), 0, untrained)
    ownership.checked_folder(ledger)  # says in the folder whose it is, as a run does


def _score(name: str, text: str, errors: int) -> ClipScore:
    """A clip whose first `errors` words are wrong."""
    words = ["wrong" if index < errors else word for index, word in enumerate(text.split())]
    return ClipScore(name, text, " ".join(words), errors, 0, 0, WORDS_PER_CLIP)
