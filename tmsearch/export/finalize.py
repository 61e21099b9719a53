"""A trained model made ready: scored on the locked test split, written as a Hugging Face folder with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tmsearch import devices
from tmsearch.evaluation import bootstrap, evaluate
from tmsearch.evaluation.scores import ClipScore, Scores, write_scores
from tmsearch.export import model_card, model_folder
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.recipe import Recipe, write_atomically

METRICS, CARD = "metrics.json", "README.md"


class PrintLine(Protocol):
    """Prints one line; a passing one may be overwritten by the next."""

    def __call__(self, line: str, passing: bool = False) -> None: ...


def rates(scores: Scores) -> dict[str, Any]:
    """Error rates with their 95 % intervals over utterances."""
    clips = scores.clips
    plain = bootstrap.wer_interval([one.edits for one in clips], [one.words for one in clips])
    raw = bootstrap.wer_interval([one.raw_edits for one in clips], [one.raw_words for one in clips])
    return {
        "wer": scores.wer,
        "wer_interval": [plain.low, plain.high] if plain else None,
        "wer_raw": scores.wer_raw,
        "wer_raw_interval": [raw.low, raw.high] if raw else None,
        "cer": scores.cer,
        "clips": len(clips),
    }


def finish(
    recipe: Recipe,
    speech: Speech,
    folder: Path,
    dtype: str,
    whisper: Whisper,
    metrics: Mapping[str, Any],
    say: PrintLine,
) -> None:
    """Score the test split, write the model and its card, and last of all the metrics: they say that it is complete."""
    found: dict[str, Any] = {**metrics, "dtype": dtype}
    worst: tuple[ClipScore, ...] = ()
    if speech.split.test:
        full, more = _tested(recipe, speech, model_folder.rounded(whisper, dtype), say)
        found |= more
        worst = full.clips
        write_scores(folder / "test", recipe.train.max_steps, full.clips)
    model_folder.export(whisper, folder, dtype, language=speech.language, task=speech.task)
    write_atomically(folder / CARD, model_card.text(recipe, found, worst, speech, folder.absolute().name))
    write_atomically(folder / METRICS, json.dumps(found, indent=2) + "\n")
    say(f"{folder}: the model, its card in {CARD}, its metrics in {METRICS}")


def _tested(recipe: Recipe, speech: Speech, whisper: Whisper, say: PrintLine) -> tuple[Scores, dict[str, Any]]:
    """As the folder will hold it: at 30 s, where a user runs it, at the study's context, and untouched at 30 s."""
    test, config = speech.split.test, recipe.train
    devices.move(whisper.model, devices.device())
    full, _ = evaluate.evaluate(whisper, speech, test, config, context="full")
    trimmed, _ = evaluate.evaluate(whisper, speech, test, config, context="study")
    longest = speech.context_rule(whisper, config).seconds
    untouched = model.load(config)
    devices.move(untouched.model, devices.device())
    before, _ = evaluate.evaluate(untouched, speech, test, config, context="full")
    found = {
        "test": rates(full),
        "test_trimmed": {**rates(trimmed), "context_seconds": longest},
        "test_zero_shot": rates(before),
    }
    say(
        f"test WER {_shown(found['test'])} (raw {full.wer_raw:.3f}, CER {full.cer:.3f}) on {len(test)} locked clips; "
        f"untouched {_shown(found['test_zero_shot'])}"
    )
    say(f"test WER {_shown(found['test_trimmed'])} at the study's own context, up to {longest:g} s a clip")
    return full, found


def _shown(found: Mapping[str, Any]) -> str:
    interval = found["wer_interval"]
    return f"{found['wer']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
