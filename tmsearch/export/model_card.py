"""The model card: what the model is, on what and how it was found, how well it does and how sure that is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tmsearch.config import TrainConfig
from tmsearch.data import text_normalizer
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore, measure_name
from tmsearch.evaluation.worst_clips import markdown_table
from tmsearch.export import runtimes
from tmsearch.features.dataset import Speech
from tmsearch.formatting import duration
from tmsearch.languages import code_if_known
from tmsearch.model import pretrained
from tmsearch.recipe import Recipe

WORST_CLIPS = 5  # shown, where transcripts are asked for
_WORST_HEADING = "\n## Worst test clips\n"
# The licenses of OpenAI's checkpoints as their pages on the Hub say, read on 2026-11-29.
_SIZES = (
    "tiny",
    "tiny.en",
    "base",
    "base.en",
    "small",
    "small.en",
    "medium",
    "medium.en",
    "large",
    "large-v2",
    "large-v3",
)
_LICENSES = {f"openai/whisper-{size}": "apache-2.0" for size in _SIZES} | {"openai/whisper-large-v3-turbo": "mit"}
_DEMO_LICENSE = "mit"  # this package's own
UNKNOWN_LICENSE = "unknown"  # the Hub's word for it


def text(recipe: Recipe, metrics: Mapping[str, Any], clips: Sequence[ClipScore], speech: Speech, name: str) -> str:
    """README.md of the model folder: YAML metadata that the Hub reads, then the card.

    Args:
        metrics: what metrics.json will hold.
        clips: scores on the test split whose worst are printed with their transcripts; empty for none.
        name: of the model folder.
    """
    head = yaml.safe_dump(metadata(recipe, metrics, name), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {name}\n\n{_worse(metrics)}{_opening(recipe)}",
        f"## How well\n\n{_results(recipe, metrics)}",
        f"## Data\n\n{_data(recipe, speech)}",
        f"## How it was found\n\n{_search(recipe)}",
        f"## Recipe\n\n{_recipe(recipe, metrics)}",
    ]
    return with_worst_clips(f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n", clips)


def with_worst_clips(card: str, clips: Sequence[ClipScore]) -> str:
    """The card with the transcripts of the worst of `clips` as its last section; without that section for no clips."""
    card = card.partition(_WORST_HEADING)[0]
    return f"{card}{_WORST_HEADING}\n{markdown_table(clips, WORST_CLIPS)}\n" if clips else card


def metadata(recipe: Recipe, metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the Hub indexes. A dataset or model of this machine has no name there; only its last part is given."""
    index: dict[str, Any] = {
        "language": [code_if_known(recipe.data.language)],
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "throat-microphone", "tmsearch"],
        "metrics": ["wer", "cer"],
    }
    index["base_model"] = _base_model(recipe.train)
    index["license"] = _license(recipe.train)
    if _is_hub_id(recipe.data.dataset):
        index["datasets"] = [recipe.data.dataset]
    split = "test" if "test" in metrics else "validation"
    rates = metrics.get(split) or {}
    if not rates.get("trained_on"):
        index["model-index"] = [_model_index(recipe, rates, split, name)]
    return index


def _base_model(config: TrainConfig) -> str:
    """The checkpoint's id on the Hub; for a folder, the id that its config.json says it came from, else its name."""
    if _is_hub_id(config.model):
        return config.model
    origin = ""
    with contextlib.suppress(InputError):
        origin = str(pretrained.find(config.model, weights=False).config().get("_name_or_path") or "")
    return origin if _is_hub_id(origin) else Path(config.model).name


def _license(config: TrainConfig) -> str:
    """The base checkpoint's license, as far as it is known: a fine-tune of it cannot be freer."""
    if config.model.startswith("demo/"):
        return _DEMO_LICENSE
    known = _LICENSES.get(_base_model(config))
    if known:
        return known
    with contextlib.suppress(InputError):
        return pretrained.find(config.model, config.model_revision, weights=False).license() or UNKNOWN_LICENSE
    return UNKNOWN_LICENSE


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
    license_id = _license(recipe.train)
    license_words = f"Its license, `{license_id}`, is the base model's."
    if license_id == UNKNOWN_LICENSE:
        license_words = "The license of the base model is not known here: set `license` above before this is published."
    return (
        f"`{model}` fine-tuned on throat-microphone speech (`{dataset}`) with tmsearch. {license_words}\n\n"
        f"```python\nfrom transformers import pipeline\n{call}\n```"
    )


def _worse(metrics: Mapping[str, Any]) -> str:
    """Where the model is worse than the checkpoint that it was made of, before anything else."""
    sentences = runtimes.regressions(metrics.get("runtimes", ()))
    return "".join(f"**{sentence}** " for sentence in sentences) + ("\n\n" if sentences else "")


def _long(metrics: Mapping[str, Any]) -> str:
    """The validation clips as long recordings, and the folder in its runtimes."""
    text = ""
    long = metrics.get("validation_long")
    if long:
        text += (
            f"\n\nThe validation clips as long recordings: WER {long['wer_long']:.3f} ({long['long_insertions']} words "
            f"inserted, {long['long_deletions']} deleted, {long['long_substitutions']} substituted of "
            f"{long['long_words']}); {long['long_near']:.0%} of the times are within 0.2 s."
        )
    keep = metrics.get("keep")
    if keep:
        text += (
            f"\n\nOn other speech, {keep['clips']} clips of `{keep['dataset']}` that were not trained on: WER "
            f"{keep['wer']:.3f}, untouched {keep['untouched_wer']:.3f}."
        )
    rows = runtimes.table(metrics.get("runtimes", ()))
    return f"{text}\n\n{rows}" if rows else text


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
    normalizer = text_normalizer.describe(recipe.data.text_language, recipe.data.normalizer)
    default = recipe.evidence.get("default")
    if default:
        lines.append(
            f"| validation split, the default recipe in the search (step {default['steps']}) | | "
            f"{default['wer']:.3f} | {_interval(default.get('interval'))} | | | |"
        )
    return (
        "\n".join(lines) + f"\n\nWER is micro-averaged, after {normalizer}; raw: as written. The "
        "intervals are bootstraps over utterances: the differences between seeds of the same recipe come on top."
        + _long(metrics)
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
        f"`{speech.corpus.fingerprint[:16]}`.{_beside(recipe, speech)}"
    )


def _beside(recipe: Recipe, speech: Speech) -> str:
    """What was trained on beside the dataset, in sentences; empty for nothing."""
    supplement = speech.supplement
    text = ""
    for entry, share in zip(supplement.extra, supplement.shares(recipe.train), strict=True):
        if share:
            heard = ", heard through a filter learnt from the training clips" if entry.response else ""
            name = _public_name(entry.settings.dataset)
            text += f" A share of {share:g} of the examples was drawn from {len(entry.names)} clips of `{name}`{heard}."
    if supplement.noise is not None and recipe.train.noise_db is not None:
        text += f" A share of {recipe.train.noise_share:g} had noise under it, {recipe.train.noise_db:g} dB below."
    return text


def _minimised(evidence: Mapping[str, Any]) -> str:
    """The rates beside the WER, and what the search minimised where it was not the WER."""
    cer = evidence.get("validation_cer")
    long = evidence.get("validation_wer_long")
    rates = "" if cer is None else f", CER {cer:.3f}"
    if long is not None:
        rates += f", {long:.3f} on long recordings"
    objective = evidence.get("objective")
    if objective is None and cer is not None:
        objective = "cer"
    if objective is None:
        return rates
    return f"{rates}; the search minimised {measure_name(objective)}"


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
    interval = _interval(evidence.get("validation_interval"))
    return f"This is {subject}, validation WER {wer:.3f} {interval}".rstrip() + f"{_minimised(evidence)}."


def _recipe(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    defaults = dataclasses.asdict(TrainConfig())
    knobs = {name: value for name, value in dataclasses.asdict(recipe.train).items() if value != defaults[name]}
    knobs["model"] = _public_name(recipe.train.model)
    lines = yaml.safe_dump(knobs, sort_keys=False, allow_unicode=True)
    intro = f"Every knob that differs from its default; weights in {metrics['dtype']}."
    if metrics.get("kept"):
        intro += f" Kept: {metrics['kept']}, by the validation split among {len(metrics['tried'])}."
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
