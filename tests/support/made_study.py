"""A study with made-up results and synthetic clips, written straight into the ledger: nothing is trained."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from search import study
from search.paths import study_folder, trial_folder
from search.space import search_space as spaces
from search.storage.database import Storage, open_storage
from search.storage.reader import study_row
from search.storage.schema import configurations, segments
from tests.support.audio_files import RecordedClip, voice, write_recordings
from tmsearch.cli.services.knobs import DATA, TRAIN
from tmsearch.config import DataConfig
from tmsearch.data import corpus as clips
from tmsearch.data import splits
from tmsearch.evaluation import alignment
from tmsearch.evaluation.scores import ClipScore, write_scores

WORDS = ("alpha", "bravo", "two", "men", "at", "the", "gate", "hold", "report", "north", "water", "road", "over")
SPACE = """
study: STUDY
data: {dataset: DATASET, validation: VALIDATION, test: 0.1}
budget: {max_steps: 400, rungs: [50, 100, 200, 400]}
search:
  model: [openai/whisper-tiny, openai/whisper-small]
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  warmup_steps: {low: 0, high: 100, step: 10}
  normalize_audio: [true, false]
start:
  - {model: openai/whisper-small, learning_rate: 1e-5, warmup_steps: 50, normalize_audio: false}
"""
MODELS = ("openai/whisper-tiny", "openai/whisper-small")
RUNGS = (50, 100, 200, 400)


@dataclass(frozen=True)
class Plan:
    """What to make. `texts` are transcripts by place, `names` file names by place, of hostile ones for instance."""

    study: str = "made"
    configurations: int = 16
    validation: int = 8
    clips: int = 30
    running: bool = False
    seconds: float = 1.2
    texts: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    hypothesis: str | None = None
    reason: str | None = None


def recordings(folder: Path, plan: Plan) -> Path:
    """Clips that hum like a voice, with metadata.csv."""
    chance = random.Random(1)
    noise = np.random.default_rng(1)
    recorded = []
    for index in range(plan.clips):
        seconds = plan.seconds * chance.uniform(0.7, 1.6)
        samples = voice(seconds, loudness=chance.uniform(0.1, 2), noise=noise).clip(-1, 1).astype(np.float32)
        name = plan.names.get(index, f"{index:04d}.flac")
        text = plan.texts.get(index, f"{index} " + " ".join(chance.choices(WORDS, k=8)))
        recorded.append(RecordedClip(name, text, samples, container="FLAC"))
    return write_recordings(folder, recorded)


def make(folder: Path, plan: Plan = Plan()) -> Storage:
    """The study in `folder`/studies, its clips in `folder`/clips."""
    data = recordings(folder / "clips", plan)
    file = folder / "space.yaml"
    given = {"STUDY": "made", "DATASET": json.dumps(str(data)), "VALIDATION": str(plan.validation)}
    text = SPACE
    for name, value in given.items():
        text = text.replace(name, value)
    file.write_text(text)
    space = spaces.load(file, train=TRAIN, data=DATA)
    object.__setattr__(space, "study", plan.study)  # a name that no space file may have
    corpus = clips.load(DataConfig(**space.data))
    split = splits.split(corpus, DataConfig(**space.data))
    storage = open_storage(f"sqlite:///{folder}/studies/tmsearch.db")
    heard = {clip.name: clip.text for clip in corpus.clips}
    before = _scores([(name, heard[name]) for name in split.validation], 0.9, 0, None)
    facts = {
        "data": {
            "fingerprint": corpus.fingerprint,
            "clips": len(corpus.clips),
            "seconds": 60.0,
            "longest": 3.0,
            "split": split.to_json(),
            "dropped": [],
        },
        "threads": 1,
        "micro_batch:openai/whisper-small@NVIDIA H100: batch 16, context None by 0.5, frozen 0, auto": 16,
        "words:0": [one.words for one in before],
        **{f"baseline:{model}": {"wer": _wer(before), "errors": [one.edits for one in before]} for model in MODELS},
    }
    study.create(storage, space, seed=0, trials=plan.configurations, version="test", known=facts)
    _fill(storage, plan, [(name, heard[name]) for name in split.validation])
    for model in MODELS:
        write_scores(study_folder(storage.folder, plan.study) / "baselines" / model.replace("/", "--"), 0, before)
    return storage


def _wer(scores: list[ClipScore]) -> float:
    return sum(one.edits for one in scores) / max(1, sum(one.words for one in scores))


def _scores(clips: list[tuple[str, str]], wrong: float, seed: int, hypothesis: str | None) -> list[ClipScore]:
    """Each word is missed, doubled or taken for another with probability `wrong` together."""
    chance, found = random.Random(seed), []
    for place, (name, text) in enumerate(clips):
        words = []
        for word in text[:400].split():
            luck = chance.random() / wrong
            other = chance.choice(WORDS) if luck < 1 else word
            words += [] if luck < 0.2 else [word, "please"] if luck < 0.4 else [other]
        said = hypothesis if hypothesis is not None and place == 0 else " ".join(words)
        pieces = alignment.align(text, said, "en")
        counts = {
            kind: sum(max(len(one.reference), len(one.hypothesis)) for one in pieces if one.kind == kind)
            for kind in ("substitute", "delete", "insert")
        }
        total = sum(len(one.reference) for one in pieces)
        found.append(ClipScore(name, text, said, *counts.values(), total))
    return found


def _fill(storage: Storage, plan: Plan, clips: list[tuple[str, str]]) -> None:
    chance, best = random.Random(7), (0, math.inf, 0)
    tables = {}
    with storage.write() as connection:
        owner = study_row(connection, plan.study)
        for number in range(plan.configurations):
            drawn = {
                "model": chance.choice(MODELS),
                "learning_rate": 10 ** chance.uniform(-6, -3),
                "warmup_steps": chance.randrange(0, 101, 10),
                "normalize_audio": chance.random() < 0.5,
            }
            depth = 4 if number % 8 == 1 else chance.choice([1, 1, 1, 2, 2, 3])
            running = plan.running and number == plan.configurations - 1
            state = "running" if running else "finished" if depth == 4 else "pruned"
            if number == 2 and not running:
                state, depth = "failed", 1
            row = connection.execute(
                sa.insert(configurations).values(
                    study_id=owner.id,
                    number=number,
                    origin="start" if number == 0 else "sampled",
                    drawn=drawn,
                    params=drawn,
                    state=state,
                    steps=0 if running else RUNGS[depth - 1],
                    token=1,
                    published=1,
                    reason=plan.reason or ("diverged at step 30" if state == "failed" else f"pruned at {depth}"),
                    failure="diverged" if state == "failed" else None,
                    target=RUNGS[0] if running else RUNGS[depth - 1],
                    worker="host|boot|1|2" if running else None,
                    lease_until=4e9 if running else None,
                    progress={"step": 20} if running else None,
                )
            )
            for step in () if running else RUNGS[:depth]:
                off = abs(math.log10(drawn["learning_rate"]) + 4.5) + 0.4 * (drawn["model"].endswith("tiny"))
                wrong = min(0.95, 0.15 + 0.15 * off + 4 / step + 0.08 * (not drawn["normalize_audio"]))
                scores = _scores(clips, wrong, 1000 * number + step, plan.hypothesis)
                metrics = {"train_seconds": step * 0.5, "eval_seconds": 5.0, "errors": [one.edits for one in scores]}
                connection.execute(
                    sa.insert(segments).values(
                        configuration_id=row.inserted_primary_key[0],
                        first_step=0,
                        step=step,
                        value=_wer(scores),
                        metrics=metrics,
                        worker="host|boot|1|2",
                        token=1,
                        committed=1000.0 + 10 * number + step / 100,
                        version="test",
                    )
                )
                if state != "failed" and (-step, _wer(scores)) < (-best[2], best[1]):
                    best, tables = (number, _wer(scores), step), {(number, step): scores}
    for (number, step), scores in tables.items():
        write_scores(trial_folder(study_folder(storage.folder, plan.study), number), step, scores)
