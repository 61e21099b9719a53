"""A trained model finished: scored on the locked test split, written as a Hugging Face folder with its card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tmsearch import devices
from tmsearch.data import corpus
from tmsearch.evaluation import bootstrap, evaluate, kept
from tmsearch.evaluation.scores import ClipScore, Scores, read_scores, write_scores
from tmsearch.export import model_card, model_folder, runtimes
from tmsearch.features.dataset import Speech
from tmsearch.files import write_atomically
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.recipe import Recipe

METRICS = "metrics.json"
CARD = "README.md"


class PrintLine(Protocol):
    """Prints one line; a `passing` one may be overwritten by the next."""

    def __call__(self, line: str, passing: bool = False) -> None: ...


def rates(scores: Scores) -> dict[str, Any]:
    """Error rates with their 95 % intervals over utterances, as metrics.json holds them."""
    clips = scores.clips
    normalized = bootstrap.wer_interval([clip.edits for clip in clips], [clip.words for clip in clips])
    raw = bootstrap.wer_interval([clip.raw_edits for clip in clips], [clip.raw_words for clip in clips])
    return {
        "wer": scores.wer,
        "wer_interval": [normalized.low, normalized.high] if normalized else None,
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
    *,
    card_transcripts: bool,
    in_runtimes: bool = True,
) -> None:
    """Scores the test split, and writes the model, its card, and last its metrics, which mark it as complete.

    With `in_runtimes` the folder is measured once more where people run it.
    """
    metrics = {**metrics, "dtype": dtype}
    test_clips: tuple[ClipScore, ...] = ()
    if speech.split.test:
        scores, test_metrics = _tested(recipe, speech, model_folder.rounded(whisper, dtype), say)
        metrics |= test_metrics
        write_scores(folder / "test", recipe.train.max_steps, scores.clips)
        if card_transcripts:
            test_clips = scores.clips
    model_folder.export(whisper, folder, dtype, language=speech.language, task=speech.task)
    if recipe.data.keep is not None:
        metrics["keep"] = _kept(recipe, speech, model_folder.rounded(whisper, dtype), say)
    if in_runtimes:
        metrics["runtimes"] = _in_runtimes(recipe, speech, folder, dtype, say)
    write_atomically(folder / CARD, model_card.text(recipe, metrics, test_clips, speech, folder.absolute().name))
    write_atomically(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    say(f"{folder}: the model, its card in {CARD}, its metrics in {METRICS}")


def _kept(recipe: Recipe, speech: Speech, whisper: Whisper, say: PrintLine) -> dict[str, Any]:
    """The WERs on data.keep of the model as its folder holds it, and of the untouched checkpoint."""
    data = recipe.data
    kept_speech = kept.speech(corpus.load(kept.dataset(data)), data, speech.cache)
    rates = {}
    for name, scored in (("wer", whisper), ("untouched_wer", model.load(recipe.train))):
        devices.move(scored.model, devices.device())
        rates[name] = kept.wer(scored, kept_speech, recipe.train)
    say(f"data.keep: WER {rates['wer']:.3f}, untouched {rates['untouched_wer']:.3f}")
    return {"dataset": Path(str(data.keep)).name, "clips": len(kept_speech.split.validation), **rates}


def _in_runtimes(recipe: Recipe, speech: Speech, folder: Path, dtype: str, say: PrintLine) -> list[runtimes.Row]:
    """The written folder beside the untouched checkpoint, written alike, in the runtimes that are installed."""
    say("hearing clips and long recordings as users of the folder will", passing=True)
    with tempfile.TemporaryDirectory() as scratch:
        untouched = Path(scratch) / "untouched"
        model_folder.export(model.load(recipe.train), untouched, dtype, language=speech.language, task=speech.task)
        rows = runtimes.measure(folder, untouched, speech)
    for line in [*runtimes.regressions(rows), *runtimes.lines(rows)]:
        say(line)
    return rows


def renew_card(recipe: Recipe, folder: Path, say: PrintLine, *, card_transcripts: bool) -> None:
    """Gives the card of a finished model its transcripts, or takes them out; changes nothing else of it."""
    card = folder / CARD
    if not card.is_file():
        return
    before = card.read_text(encoding="utf-8")
    clips = read_scores(folder / "test", recipe.train.max_steps) if card_transcripts else ()
    after = model_card.with_worst_clips(before, clips)
    if after != before:
        write_atomically(card, after)
        say(f"{card}: now {'with' if clips else 'without'} the transcripts of the worst test clips")


def _tested(recipe: Recipe, speech: Speech, whisper: Whisper, say: PrintLine) -> tuple[Scores, dict[str, Any]]:
    """The model as its folder will hold it: at 30 s, where a user runs it; at the study's context; and the untouched
    checkpoint at 30 s."""
    test = speech.split.test
    config = recipe.train
    devices.move(whisper.model, devices.device())
    full, _ = evaluate.evaluate(whisper, speech, test, config, context="full")
    trimmed, _ = evaluate.evaluate(whisper, speech, test, config, context="study")
    context_seconds = speech.context_rule(whisper, config).seconds
    untouched = model.load(config)
    devices.move(untouched.model, devices.device())
    zero_shot, _ = evaluate.evaluate(untouched, speech, test, config, context="full")
    metrics = {
        "test": rates(full),
        "test_trimmed": {**rates(trimmed), "context_seconds": context_seconds},
        "test_zero_shot": rates(zero_shot),
    }
    say(
        f"test WER {_wer(metrics['test'])} (raw {full.wer_raw:.3f}, CER {full.cer:.3f}) on {len(test)} locked clips; "
        f"untouched {_wer(metrics['test_zero_shot'])}"
    )
    say(f"test WER {_wer(metrics['test_trimmed'])} at the study's own context, up to {context_seconds:g} s a clip")
    return full, metrics


def _wer(metrics: Mapping[str, Any]) -> str:
    interval = metrics["wer_interval"]
    return f"{metrics['wer']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
