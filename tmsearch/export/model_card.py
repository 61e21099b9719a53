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

WORST = 5  # clips shown


def text(recipe: Recipe, metrics: Mapping[str, Any], worst: Sequence[ClipScore], speech: Speech, name: str) -> str:
    """README.md of the model folder: YAML metadata that the Hub reads, then the card."""
    head = yaml.safe_dump(metadata(recipe, metrics, name), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {name}\n\n{_opening(recipe, speech)}",
        f"## How well\n\n{_table(recipe, metrics)}",
        f"## Data\n\n{_data(recipe, speech)}",
        f"## How it was found\n\n{_search(recipe)}",
        f"## Recipe\n\n{_recipe(recipe, metrics)}",
    ]
    if worst:
        parts.append(f"## Worst test clips\n\n{markdown_table(worst, WORST)}")
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(recipe: Recipe, metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the Hub indexes; a dataset or model of this machine has no name there, so only its last part is told."""
    found: dict[str, Any] = {
        "language": [language_code(recipe.data.language)],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "throat-microphone", "tmsearch"],
        "metrics": ["wer", "cer"],
    }
    if _is_hub_id(recipe.train.model):
        found["base_model"] = recipe.train.model
    if _is_hub_id(recipe.data.dataset):
        found["datasets"] = [recipe.data.dataset]
    scored = metrics.get("test") or metrics.get("validation") or {}
    split = "test" if "test" in metrics else "validation"
    if not scored.get("trained_on"):
        found["model-index"] = [_index(recipe, scored, split, name)]
    return found


def _index(recipe: Recipe, scored: Mapping[str, Any], split: str, name: str) -> dict[str, Any]:
    dataset = {"name": _last(recipe.data.dataset), "type": recipe.data.dataset, "split": split}
    if not _is_hub_id(recipe.data.dataset):
        dataset["type"] = _last(recipe.data.dataset)
    if recipe.data.revision:
        dataset["revision"] = recipe.data.revision
    raw = "WER, case and punctuation count"
    measured = [("wer", "wer", "WER, normalised"), ("wer", "wer_raw", raw), ("cer", "cer", "CER")]
    return {
        "name": name,
        "results": [
            {
                "task": {"type": "automatic-speech-recognition", "name": "Automatic Speech Recognition"},
                "dataset": dataset,
                "metrics": [
                    {"type": kind, "value": round(scored[key], 4), "name": title} for kind, key, title in measured
                ],
            }
        ],
    }


def _opening(recipe: Recipe, speech: Speech) -> str:
    about = f"`{_last(recipe.train.model)}` fine-tuned on throat-microphone speech (`{_last(recipe.data.dataset)}`)"
    call = 'pipeline("automatic-speech-recognition", model="THIS_FOLDER_OR_ID")(samples)  # 16 kHz float array'
    return f"{about} with tmsearch.\n\n```python\nfrom transformers import pipeline\n{call}\n```"


def _table(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    lines = ["| | clips | WER | 95 % | WER raw | 95 % | CER |", "|---|---|---|---|---|---|---|"]
    rows = (
        ("test split, 30 s", "test"),
        ("test split, the study's own context", "test_trimmed"),
        ("test split, 30 s, untouched checkpoint (zero-shot)", "test_zero_shot"),
        ("validation split", "validation"),
    )
    for title, key in rows:
        one = metrics.get(key)
        if one:
            seen = " (trained on)" if one.get("trained_on") else ""
            lines.append(
                f"| {title}{seen} | {one['clips']} | {one['wer']:.3f} | {_interval(one.get('wer_interval'))} | "
                f"{one['wer_raw']:.3f} | {_interval(one.get('wer_raw_interval'))} | {one['cer']:.3f} |"
            )
    told = recipe.evidence.get("default")
    if told:
        lines.append(
            f"| validation split, the default recipe in the search (step {told['steps']}) | | {told['wer']:.3f} | "
            f"{_interval(told.get('interval'))} | | | |"
        )
    return (
        "\n".join(lines) + "\n\nWER is micro-averaged, after Whisper's own text normaliser; raw: as written. The "
        "intervals are bootstraps over utterances: what another seed of the same recipe gives comes on top."
    )


def _data(recipe: Recipe, speech: Speech) -> str:
    data, split = recipe.data, speech.split
    minutes = sum(clip.seconds for clip in speech.corpus.clips) / 60
    revision = f", revision {data.revision}" if data.revision else ""
    return (
        f"`{_last(data.dataset)}`{revision}: {len(speech.corpus.clips)} clips, {minutes:.1f} min, language "
        f"{data.language}. {len(split.train)} clips to train, {len(split.validation)} to validate, {len(split.test)} "
        f"locked as test; no {' nor '.join(split.grouped_by)} is in two of them. Fingerprint of the clips: "
        f"`{speech.corpus.fingerprint[:16]}`."
    )


def _search(recipe: Recipe) -> str:
    told = recipe.evidence
    if not told:
        return "By hand: no search stands behind the recipe."
    lines = [
        f"{told.get('configurations', '?')} configurations of study `{told.get('study')}` in "
        f"{duration(told.get('search_seconds', 0.0))} of training and evaluation; searched: "
        f"{', '.join(told.get('searched', [])) or 'nothing'}. This is trial {told.get('trial')}, validation WER "
        f"{told.get('validation_wer', float('nan')):.3f} {_interval(told.get('validation_interval'))}."
    ]
    sure = told.get("confirm")
    if sure:
        took = duration(sure["seconds"])
        lines.append(f"Confirmed with other seeds in {took}: {sure['sentence']} {sure['cross_check']}.")
        lines.append("\n".join(f"- {line}" for line in sure["recipes"]))
        if "test" in sure:
            lines.append(f"On the locked test split, read on {sure['test_read']}: {sure['test']}")
    else:
        lines.append("Not confirmed with other seeds: the lowest of many WERs is partly luck.")
    return "\n\n".join(lines)


def _recipe(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    defaults = dataclasses.asdict(TrainConfig())
    away = {name: value for name, value in dataclasses.asdict(recipe.train).items() if value != defaults[name]}
    away["model"] = _last(recipe.train.model)
    knobs = yaml.safe_dump(away, sort_keys=False, allow_unicode=True)
    kept = f" Kept: {metrics['kept']}, by validation WER among {len(metrics['tried'])}." if metrics.get("kept") else ""
    versions = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    return f"Every knob away from its default; weights in {metrics['dtype']}.{kept}\n\n```yaml\n{knobs}```" + (
        f"\n\n{versions}; recipe `{recipe.hash[:16]}`." if versions else ""
    )


def _interval(bounds: Sequence[float] | None) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~", "demo/")) and not Path(name).exists()


def _last(name: str) -> str:
    """A path's last part: where a folder lies on somebody's machine is nobody else's business."""
    return name if _is_hub_id(name) or name.startswith("demo") else Path(name).name
