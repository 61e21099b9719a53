"""Studies that nobody trained: a space, test recordings, facts and made-up results, through the ledger's own doors.

    StudyBuilder(folder, SPACE).recordings(clips).facts({...}).trial(params, curve, "pruned").build()

`random_study`, `hostile_study` and `claimed_study` are the three that several tests share.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search import study
from search.paths import study_folder, trial_folder
from search.process_id import ProcessId
from search.records import Rung
from search.schedulers.scheduler import SchedulerConfig
from search.storage import entries
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from tests.support.audio_files import RecordedClip, tone, voice, write_recordings
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data import corpus, splits
from tmsearch.evaluation import alignment
from tmsearch.evaluation.scores import ClipScore, write_scores
from tmsearch.recipe import Recipe, save_recipe

Curve = Mapping[int, Sequence[ClipScore]]  # step -> every validation clip's score
THIS_PROCESS = ProcessId.current()


def wer(scores: Sequence[ClipScore]) -> float:
    """The micro-averaged WER of clips."""
    return sum(score.edits for score in scores) / max(1, sum(score.words for score in scores))


def rung(step: int, scores: Sequence[ClipScore], seconds: float) -> Rung:
    """A result as the training process reports it, after `seconds` of training since the rung before."""
    errors = [score.edits for score in scores]
    metrics = {"wer_raw": wer(scores), "cer": wer(scores) / 2, "train_seconds": seconds, "eval_seconds": 5.0}
    return Rung(step, wer(scores), metrics | {"errors": errors, "clips": len(errors)})


class StudyBuilder:
    """One study, in `folder`/studies/tmsearch.db; its recordings, if any, in `folder`/clips.

    Args:
        folder: where everything goes.
        space: the space file's text; DATASET in it becomes the folder of recordings.
        name: the study's name instead of the space's, also one that no space file may have.
    """

    def __init__(self, folder: Path, space: str, name: str | None = None) -> None:
        self.folder = folder
        self.dataset = folder / "clips"
        self._space = space
        self._name = name
        self._facts: dict[str, Any] = {"threads": 1}
        self._entries: list[entries.Entry] = []
        self._curves: list[Curve] = []
        self._trials = 0

    def recordings(self, clips: Iterable[RecordedClip]) -> StudyBuilder:
        """Write the study's dataset."""
        write_recordings(self.dataset, clips)
        return self

    def facts(self, facts: Mapping[str, Any]) -> StudyBuilder:
        """What the study found out about its data and models, by the ledger's keys."""
        self._facts |= facts
        return self

    def trial(
        self,
        params: Mapping[str, Any],
        curve: Curve,
        state: str,
        *,
        reason: str | None = None,
        failure: str | None = None,
        rung_seconds: float | None = None,
    ) -> StudyBuilder:
        """One more configuration; the first is a start entry, the others are sampled.

        Args:
            params: its parameters, all of them drawn.
            curve: every validation clip's score by step.
            state: a configuration's state, as the ledger has it.
            reason: why it ended.
            failure: the class of its failure.
            rung_seconds: of training to each rung; None: half a second a step.
        """
        number = len(self._entries)
        origin = "start" if number == 0 else "sampled"
        rungs = []
        for step, scores in curve.items():
            rungs.append(rung(step, scores, 0.5 * step if rung_seconds is None else rung_seconds))
        self._entries.append(
            entries.Entry(str(number), origin, params, params, state, tuple(rungs), reason, failure)  # type: ignore[arg-type]
        )
        self._curves.append(curve)
        return self

    def trials(self, total: int) -> StudyBuilder:
        """How many configurations are asked for; else as many as were given."""
        self._trials = total
        return self

    def space_file(self) -> Path:
        """The space file, written."""
        file = self.folder / "space.yaml"
        file.write_text(self._space.replace("DATASET", json.dumps(str(self.dataset))), encoding="utf-8")
        return file

    def build(self) -> Ledger:
        """Create the study, enter its configurations, write each one's recipe and scores."""
        space = load_space(str(self.space_file()), [], None)
        if self._name is not None:
            space = dataclasses.replace(space, study=self._name)
        storage = open_storage(f"sqlite:///{self.folder}/studies/tmsearch.db")
        total = self._trials or len(self._entries)
        ledger = study.create(storage, space, seed=0, trials=total, version="test", facts=self._facts)
        entries.enter(ledger, self._entries)
        fixed = {key: value for key, value in space.train.items() if key not in space.search}
        for number, (entry, curve) in enumerate(zip(self._entries, self._curves, strict=True)):
            folder = trial_folder(study_folder(storage.folder, ledger.study), number)
            recipe = Recipe(DataConfig(**space.data), TrainConfig(**{**fixed, **entry.params}), 1)
            save_recipe(folder / "config.yaml", recipe)
            for step, scores in curve.items():
                write_scores(folder, step, list(scores))
        return ledger


RANDOM_SPACE = """
study: made
data: {dataset: DATASET, validation: VALIDATION, test: 0.1}
budget: {max_steps: 400, rungs: [50, 100, 200, 400], eta: 4}
search:
  model: [openai/whisper-tiny, openai/whisper-small]
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  warmup_steps: {low: 0, high: 100, step: 10}
  normalize_audio: [true, false]
start:
  - {model: openai/whisper-small, learning_rate: 1e-5, warmup_steps: 50, normalize_audio: false}
"""
RANDOM_MODELS = ("openai/whisper-tiny", "openai/whisper-small")
RANDOM_RUNGS = (50, 100, 200, 400)
WORDS = ("alpha", "bravo", "two", "men", "at", "the", "gate", "hold", "report", "north", "water", "road", "over")


@dataclass(frozen=True)
class Plan:
    """What `random_study` makes. `texts` and `names` replace transcripts and file names by the clip's index."""

    study: str = "made"
    configurations: int = 16
    validation: int = 8  # clips
    clips: int = 30
    running: bool = False  # whether the last configuration is at work
    seconds: float = 1.2  # of a clip, roughly
    texts: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    hypothesis: str | None = None  # of the first validation clip
    reason: str | None = None  # why every configuration ended


def random_study(folder: Path, plan: Plan = Plan()) -> Ledger:
    """A study of random configurations over recordings that sound like a voice, their WERs a function of the knobs."""
    space = RANDOM_SPACE.replace("VALIDATION", str(plan.validation))
    builder = StudyBuilder(folder, space, plan.study).recordings(_voices(plan)).trials(plan.configurations)
    speech = corpus.load(DataConfig(dataset=str(builder.dataset), validation=plan.validation, test=0.1))
    split = splits.split(speech, DataConfig(dataset=str(builder.dataset), validation=plan.validation, test=0.1))
    texts = {clip.name: clip.text for clip in speech.clips}
    clips = [(name, texts[name]) for name in split.validation]
    zero_shot = misheard(clips, 0.9, seed=0)
    baseline = {"wer": wer(zero_shot), "errors": [score.edits for score in zero_shot]}
    builder.facts(
        {
            "data": data_fact(speech.fingerprint, len(speech.clips), split.to_json()),
            "micro_batch:openai/whisper-small@NVIDIA H100: batch 16, context None by 0.5, frozen 0, auto": 16,
            "words:0": [score.words for score in zero_shot],
            **{f"baseline:{model}": baseline for model in RANDOM_MODELS},
        }
    )
    _random_trials(builder, plan, clips)
    ledger = builder.build()
    if plan.running:
        config = load_space(str(builder.space_file()), [], None).budget.scheduler_config
        claim = ledger.claim(ProcessId.parse("host|boot|1|2"), config)
        assert claim is not None
        ledger.set_params(claim, _random_params(random.Random(8)), _random_params(random.Random(8)), "sampled")
    for model in RANDOM_MODELS:
        folder_of_model = study_folder(ledger.storage.folder, plan.study) / "baselines" / model.replace("/", "--")
        write_scores(folder_of_model, 0, zero_shot)
    return ledger


def data_fact(fingerprint: str, clips: int, split: Mapping[str, Any]) -> dict[str, Any]:
    """The fact `data` of a study."""
    numbers = {"fingerprint": fingerprint, "clips": clips, "seconds": 60.0, "longest": 3.0}
    return {**numbers, "split": split, "dropped": []}


def misheard(
    clips: Sequence[tuple[str, str]], error_rate: float, seed: int, first_hypothesis: str | None = None
) -> list[ClipScore]:
    """Scores of (name, text) pairs where each word is missed, doubled or replaced with probability `error_rate`."""
    chance = random.Random(seed)
    scores = []
    for index, (name, text) in enumerate(clips):
        words: list[str] = []
        for word in text[:400].split():
            luck = chance.random() / error_rate
            replacement = chance.choice(WORDS) if luck < 1 else word
            if luck >= 0.4:
                words.append(replacement)
            elif luck >= 0.2:
                words += [word, "please"]
        hypothesis = first_hypothesis if first_hypothesis is not None and index == 0 else " ".join(words)
        scores.append(_score(name, text, hypothesis))
    return scores


def _score(name: str, text: str, hypothesis: str) -> ClipScore:
    counts = {"substitute": 0, "delete": 0, "insert": 0}
    words = 0
    for span in alignment.align(text, hypothesis, "en"):
        words += len(span.reference)
        if span.kind in counts:
            counts[span.kind] += max(len(span.reference), len(span.hypothesis))
    return ClipScore(name, text, hypothesis, *counts.values(), words)


def _voices(plan: Plan) -> list[RecordedClip]:
    chance = random.Random(1)
    noise = np.random.default_rng(1)
    clips = []
    for index in range(plan.clips):
        seconds = plan.seconds * chance.uniform(0.7, 1.6)
        samples = voice(seconds, loudness=chance.uniform(0.1, 2), noise=noise).clip(-1, 1).astype(np.float32)
        name = plan.names.get(index, f"{index:04d}.flac")
        text = plan.texts.get(index, f"{index} " + " ".join(chance.choices(WORDS, k=8)))
        clips.append(RecordedClip(name, text, samples, container="FLAC"))
    return clips


def _random_params(chance: random.Random) -> dict[str, Any]:
    return {
        "model": chance.choice(RANDOM_MODELS),
        "learning_rate": 10 ** chance.uniform(-6, -3),
        "warmup_steps": chance.randrange(0, 101, 10),
        "normalize_audio": chance.random() < 0.5,
    }


def _random_trials(builder: StudyBuilder, plan: Plan, clips: Sequence[tuple[str, str]]) -> None:
    """Every eighth configuration finishes, the third fails, the others are pruned at a random rung."""
    chance = random.Random(7)
    for number in range(plan.configurations - plan.running):
        params = _random_params(chance)
        rungs_reached = 4 if number % 8 == 1 else chance.choice([1, 1, 1, 2, 2, 3])
        state, failure, reason = "pruned", None, f"pruned at {rungs_reached}"
        if number == 2:
            state, failure, reason, rungs_reached = "failed", "diverged", "diverged at step 30", 1
        elif rungs_reached == 4:
            state = "finished"
        distance = abs(math.log10(params["learning_rate"]) + 4.5) + 0.4 * params["model"].endswith("tiny")
        curve = {}
        for step in RANDOM_RUNGS[:rungs_reached]:
            error_rate = min(0.95, 0.15 + 0.15 * distance + 4 / step + 0.08 * (not params["normalize_audio"]))
            curve[step] = misheard(clips, error_rate, 1000 * number + step, plan.hypothesis)
        builder.trial(params, curve, state, reason=plan.reason or reason, failure=failure)


# Sets the title of a page that takes a text for its own.
HOSTILE_SCRIPT = "document.title='owned'"
HOSTILE_TEXTS = {
    f"<img src=x onerror={HOSTILE_SCRIPT}>": f"<script>{HOSTILE_SCRIPT}</script><img src=x onerror={HOSTILE_SCRIPT}>",
    "a|b `c` [d](javascript:alert)": "| **bold** | [link](javascript:alert) `code` ~~gone~~ # head",
    "\u202ereversed": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u2066def",
    "emoji \U0001f469\u200d\U0001f467": "family \U0001f469\u200d\U0001f467 at www.example.com",
    "=cmd": '=HYPERLINK("http://example.com";"click")',
    "@sum": "@SUM(1+1)*cmd|' /C calc'!A0",
    "long": "word " * 2000,
    "quotes \"'": "he said \"no\" & she said 'yes' &lt;b&gt;",
}
HOSTILE_SPACE = """
study: made_up
data: {dataset: DATASET, validation: 8, test: 1}
budget: {max_steps: 80, rungs: [20, 40, 80]}
search:
  learning_rate: {low: 1e-6, high: 1e-2, log: true}
  model: [demo/nano, demo/micro]
start:
  - {learning_rate: 1e-5, model: demo/micro}
"""
HOSTILE_DEFAULT = {"learning_rate": 1e-5, "model": "demo/micro"}
HOSTILE_SAMPLED = {"learning_rate": 3e-4, "model": "demo/micro"}


def hostile_scores(errors: int) -> list[ClipScore]:
    """Scores of the hostile texts: each clip has `errors` of its 9 words wrong, the last none."""
    texts = {f"{name}.wav": " ".join(text.split()) for name, text in HOSTILE_TEXTS.items()}
    scores = [ClipScore(name, text, f"-{text}", 0, 0, errors, 9) for name, text in texts.items()]
    last = scores[-1]
    scores[-1] = dataclasses.replace(last, hypothesis=last.reference, insertions=0)
    return scores


def hostile_study(folder: Path, *, over: bool = True, name: str = "made_up") -> Ledger:
    """Four trials on tones with hostile texts and names: 0 is pruned, 1 finished, 2 failed, 3 pruned.

    Args:
        over: whether the study has ended; else trial 3 is paused.
    """
    tones = []
    for index, (clip, text) in enumerate(HOSTILE_TEXTS.items()):
        tones.append(RecordedClip(f"{clip}.wav", text, tone(1.0 + 0.2 * index, 200.0 + 100 * index)))
    split = {"train": [], "validation": [score.name for score in hostile_scores(1)], "test": []}
    baseline = {"wer": 1.0, "errors": [9] * 8, "wer_raw": 1.0, "cer": 1.0, "clips": 8}
    builder = StudyBuilder(folder, HOSTILE_SPACE, name).recordings(tones)
    builder.facts({"data": data_fact("f", 8, split), "words:0": [9] * 8, "baseline:demo/micro": baseline})
    finished = {20: hostile_scores(3), 40: hostile_scores(2), 80: hostile_scores(1)}
    builder.trial(HOSTILE_DEFAULT, {20: hostile_scores(6)}, "pruned", reason="not promoted", rung_seconds=60.0)
    builder.trial(HOSTILE_SAMPLED, finished, "finished", reason="trained in full, 80 steps", rung_seconds=60.0)
    builder.trial(HOSTILE_SAMPLED, {}, "failed", reason="out of memory", failure="oom")
    if over:
        builder.trial(HOSTILE_SAMPLED, {20: hostile_scores(5)}, "pruned", reason="not promoted", rung_seconds=60.0)
    else:
        builder.trial(HOSTILE_SAMPLED, {20: hostile_scores(5)}, "paused", rung_seconds=60.0)
    return builder.build()


CLAIMED_SPACE = """
study: many
data: {dataset: demo}
budget: {max_steps: 800, rungs: [100, 200, 400, 800], eta: 4}
search:
  model: [openai/whisper-small, openai/whisper-large-v3, me/a-model-whose-name-is-much-longer-than-any-column-should-be]
  learning_rate: {low: 1e-6, high: 5e-5, log: true}
  warmup_steps: {low: 0, high: 100, step: 10}
  normalize_audio: [true, false]
  label_smoothing: {low: 0.0, high: 0.15}
  spec_time_masks: [0, 2]
"""
CLAIMED_CLIPS = 150
LONG_NAME = "me/a-model-whose-name-is-much-longer-than-any-column-should-be"
CLAIMED_MODELS = ("openai/whisper-small", "openai/whisper-large-v3", LONG_NAME)


def claimed_study(folder: Path, trials: int, results: int | None = None) -> tuple[Ledger, SchedulerConfig]:
    """A study whose segments were claimed and committed, to its end or to `results` results; then one is at work."""
    words = {"data": {"clips": CLAIMED_CLIPS}, "words:0": [8] * CLAIMED_CLIPS}
    baseline = {"wer": 0.8, "errors": [6, 7] * (CLAIMED_CLIPS // 2)}
    builder = StudyBuilder(folder, CLAIMED_SPACE).trials(trials)
    ledger = builder.facts({**words, "baseline:openai/whisper-small": baseline}).build()
    config = load_space(str(builder.space_file()), [], None).budget.scheduler_config
    committed = 0
    while (claim := ledger.claim(THIS_PROCESS, config)) is not None:
        params = claimed_params(claim.number)
        ledger.set_params(claim, params, params, "sampled")
        if committed == results:
            ledger.sign_in(THIS_PROCESS, "GPU 0", "test")
            ledger.renew(claim, {"event": "progress", "step": claim.first_step + 7, "loss": 1.25, "seconds": 0.5})
            break
        commit_made_up(ledger, config, claim)
        committed += 1
    return ledger, config


def claimed_params(number: int) -> dict[str, Any]:
    """Parameters of configuration `number` of a claimed study."""
    return {
        "model": CLAIMED_MODELS[number % 3],
        "learning_rate": 1e-6 * (1 + number % 49),
        "warmup_steps": 10 * (number % 11),
        "normalize_audio": number % 2 == 0,
        "label_smoothing": 0.15 * number / 200,
        "spec_time_masks": 2 * (number % 2),
    }


def commit_made_up(ledger: Ledger, config: SchedulerConfig, claim: Any) -> Any:
    """Commit a made-up result for a claim; every 25th configuration diverges instead."""
    if claim.number % 25 == 24:
        return ledger.fail(claim, "diverged", "the loss is not finite")
    errors = [(claim.number * 7 + clip) % 5 + (claim.last_step < 800) for clip in range(CLAIMED_CLIPS)]
    seconds = 1.0 * (claim.last_step - claim.first_step)
    metrics = {"train_seconds": seconds, "eval_seconds": 9.5, "errors": errors, "clips": CLAIMED_CLIPS}
    return ledger.commit(claim, sum(errors) / (8 * CLAIMED_CLIPS), metrics, config)
