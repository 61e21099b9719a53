"""The model card: what the model is, on what and how it was found, how well it does and how sure that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import TrainConfig
from tmsearch.evaluation.scores import ClipScore
from tmsearch.evaluation.worst_clips import markdown_table
from tmsearch.features.dataset import Speech
from tmsearch.formatting import duration
from tmsearch.model.tokens import language_code
from tmsearch.recipe import Recipe

WORST_CLIPS = 5  # shown


def text(recipe: Recipe, metrics: Mapping[str, Any], clips: Sequence[ClipScore], speech: Speech, name: str) -> str:
    """README.md of the model folder: YAML metadata that the Hub reads, then the card.

    Args:
        metrics: what metrics.json will hold.
        clips: the scores on the test split, empty where there is none.
        name: of the model folder.
    """
    head = yaml.safe_dump(metadata(recipe, metrics, name), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {name}\n\n{_opening(recipe)}",
        f"## How well\n\n{_results(recipe, metrics)}",
        f"## Data\n\n{_data(recipe, speech)}",
        f"## How it was found\n\n{_search(recipe)}",
        f"## Recipe\n\n{_recipe(recipe, metrics)}",
    ]
    if clips:
        parts.append(f"## Worst test clips\n\n{markdown_table(clips, WORST_CLIPS)}")
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(recipe: Recipe, metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the Hub indexes. A dataset or model of this machine has no name there; only its last part is given."""
    index: dict[str, Any] = {
        "language": [language_code(recipe.data.language)],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "throat-microphone", "tmsearch"],
        "metrics": ["wer", "cer"],
    }
    if _is_hub_id(recipe.train.model):
        index["base_model"] = recipe.train.model
    if _is_hub_id(recipe.data.dataset):
        index["datasets"] = [recipe.data.dataset]
    split = "test" if "test" in metrics else "validation"
    rates = metrics.get(split) or {}
    if not rates.get("trained_on"):
        index["model-index"] = [_model_index(recipe, rates, split, name)]
    return index


def _model_index(recipe: Recipe, rates: Mapping[str, Any], split: str, name: str) -> dict[str, Any]:
    dataset = {"name": _public_name(recipe.data.dataset), "type": _public_name(recipe.data.dataset), "split": split}
    if _is_hub_id(recipe.data.dataset):
        dataset["type"] = recipe.data.dataset
    if recipe.data.revision:
        dataset["revision"] = recipe.data.revision
    metrics = []
    for kind, key, title in (
        ("wer", "wer", "WER, normalised"),
        ("wer", "wer_raw", "WER, case and punctuation count"),
        ("cer", "cer", "CER"),
    ):
        metrics.append({"type": kind, "value": round(rates[key], 4), "name": title})
    task = {"type": "automatic-speech-recognition", "name": "Automatic Speech Recognition"}
    return {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}


def _opening(recipe: Recipe) -> str:
    model = _public_name(recipe.train.model)
    dataset = _public_name(recipe.data.dataset)
    call = 'pipeline("automatic-speech-recognition", model="THIS_FOLDER_OR_ID")(samples)  # 16 kHz float array'
    return (
        f"`{model}` fine-tuned on throat-microphone speech (`{dataset}`) with tmsearch.\n\n"
        f"```python\nfrom transformers import pipeline\n{call}\n```"
    )


def _results(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    lines = ["| | clips | WER | 95 % | WER raw | 95 % | CER |", "|---|---|---|---|---|---|---|"]
    for title, key in (
        ("test split, 30 s", "test"),
        ("test split, the study's own context", "test_trimmed"),
        ("test split, 30 s, untouched checkpoint (zero-shot)", "test_zero_shot"),
        ("validation split", "validation"),
    ):
        rates = metrics.get(key)
        if rates:
            trained_on = " (trained on)" if rates.get("trained_on") else ""
            lines.append(
                f"| {title}{trained_on} | {rates['clips']} | {rates['wer']:.3f} | "
                f"{_interval(rates.get('wer_interval'))} | {rates['wer_raw']:.3f} | "
                f"{_interval(rates.get('wer_raw_interval'))} | {rates['cer']:.3f} |"
            )
    default = recipe.evidence.get("default")
    if default:
        lines.append(
            f"| validation split, the default recipe in the search (step {default['steps']}) | | "
            f"{default['wer']:.3f} | {_interval(default.get('interval'))} | | | |"
        )
    return (
        "\n".join(lines) + "\n\nWER is micro-averaged, after Whisper's own text normaliser; raw: as written. The "
        "intervals are bootstraps over utterances: the differences between seeds of the same recipe come on top."
    )


def _data(recipe: Recipe, speech: Speech) -> str:
    data = recipe.data
    split = speech.split
    minutes = sum(clip.seconds for clip in speech.corpus.clips) / 60
    revision = f", revision {data.revision}" if data.revision else ""
    return (
        f"`{_public_name(data.dataset)}`{revision}: {len(speech.corpus.clips)} clips, {minutes:.1f} min, language "
        f"{data.language}. {len(split.train)} clips to train, {len(split.validation)} to validate, {len(split.test)} "
        f"locked as test; no {' nor '.join(split.grouped_by)} is in two of them. Fingerprint of the clips: "
        f"`{speech.corpus.fingerprint[:16]}`."
    )


def _search(recipe: Recipe) -> str:
    evidence = recipe.evidence
    if not evidence:
        return "By hand: no search stands behind the recipe."
    paragraphs = [
        f"{evidence.get('configurations', '?')} configurations of study `{evidence.get('study')}` in "
        f"{duration(evidence.get('search_seconds', 0.0))} of training and evaluation; searched: "
        f"{', '.join(evidence.get('searched', [])) or 'nothing'}. {_subject(evidence)}"
    ]
    confirmation = evidence.get("confirm")
    if not confirmation:
        paragraphs.append("Not confirmed with other seeds: the lowest of many WERs is partly luck.")
        return "\n\n".join(paragraphs)
    if "takes" in confirmation:
        paragraphs.append(f"The confirmation takes {confirmation['takes']}.")
    trained_again = "Confirmed" if confirmation.get("told_apart") else "Trained again"
    paragraphs.append(
        f"{trained_again} with other seeds in {duration(confirmation['seconds'])}: {confirmation['sentence']} "
        f"{confirmation['cross_check']}."
    )
    paragraphs.append("\n".join(f"- {line}" for line in confirmation["recipes"]))
    if "test" in confirmation:
        paragraphs.append(f"On the locked test split, read on {confirmation['test_read']}: {confirmation['test']}")
    return "\n\n".join(paragraphs)


def _subject(evidence: Mapping[str, Any]) -> str:
    trial = evidence.get("trial")
    subject = "the default recipe, which the confirmation trained" if trial is None else f"trial {trial}"
    wer = evidence.get("validation_wer")
    if wer is None:
        return f"This is {subject}."
    return (
        f"This is {subject}, validation WER {wer:.3f} {_interval(evidence.get('validation_interval'))}".rstrip() + "."
    )


def _recipe(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    defaults = dataclasses.asdict(TrainConfig())
    knobs = {name: value for name, value in dataclasses.asdict(recipe.train).items() if value != defaults[name]}
    knobs["model"] = _public_name(recipe.train.model)
    lines = yaml.safe_dump(knobs, sort_keys=False, allow_unicode=True)
    intro = f"Every knob that differs from its default; weights in {metrics['dtype']}."
    if metrics.get("kept"):
        intro += f" Kept: {metrics['kept']}, by validation WER among {len(metrics['tried'])}."
    versions = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    footer = f"\n\n{versions}; recipe `{recipe.hash[:16]}`." if versions else ""
    return f"{intro}\n\n```yaml\n{lines}```{footer}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~", "demo/")) and not Path(name).exists()


def _public_name(name: str) -> str:
    """A path's last part: where a folder lies on somebody's machine is private."""
    return name if _is_hub_id(name) or name.startswith("demo") else Path(name).name
