"""A study's configuration as a recipe with its evidence, and a recipe file read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search import records, study
from search.errors import UserError
from search.platforms import usable_cores
from search.records import IMPORTED, Configuration
from search.space import yaml_loader
from search.space.errors import Location
from search.space.knobs import Knob, check, check_keys
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.services.confirmation import SUFFIX
from tmsearch.cli.services.knobs import DATA, TRAIN
from tmsearch.cli.services.verdicts import Decision, decide, race_of, verdict, verdict_lines
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of
from tmsearch.cli.view.output_file import write_output
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.languages import usual_normalizer
from tmsearch.recipe import Recipe, split_facts, versions
from tmsearch.trial.facts import StudyFacts


@dataclasses.dataclass(frozen=True)
class ExportedRecipe:
    """A configuration as a recipe, its trial's number (or NOT_SEARCHED), and why this one."""

    recipe: Recipe
    number: int
    reason: str


NOT_SEARCHED = -1  # the number of a default recipe that only the confirmation trained
KEYS = ("data", "train", "threads", "fingerprint", "split", "versions", "evidence", "supplement", "hash")


def finished_confirmation(storage: Storage, summary: Summary) -> Summary | None:
    """The study that confirms another, once it has a verdict."""
    name = summary.record.name + SUFFIX
    if name not in study.names(storage):
        return None
    confirmed = study.summarize(study.open_study(storage, name))
    if confirmed.record.created < summary.record.created:  # it confirms an earlier study of this name
        return None
    if StudyFacts.from_json(confirmed.facts).confirms is None or not race_of(confirmed).over:
        return None
    return None if verdict(confirmed) is None else confirmed


def export_recipe(storage: Storage, name: str, number: int | None) -> ExportedRecipe:
    """A configuration of a study as a recipe; arguments and errors as of `choose_trial`."""
    summary = study.summarize(study.open_study(storage, name))
    confirmed = finished_confirmation(storage, summary)
    trial, reason = choose_trial(summary, confirmed, number)
    return ExportedRecipe(recipe_of(summary, confirmed, trial), trial.number, reason)


def write_recipe(file: Path, text: str) -> None:
    """Write a recipe's text, or the trainer's arguments, over nothing but an earlier one.

    Raises:
        UserError: the file cannot be written, or is something else.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"{file}: no file can be written there; name one in a folder that exists")
    if file.is_file() and not _is_earlier(file):
        raise UserError(f"{file}: exists and is not what `export` wrote; name another file, or remove it")
    write_output(file, text)


def _is_earlier(file: Path) -> bool:
    """Whether `file` is a recipe, perhaps changed by hand, or the trainer's arguments; or empty."""
    if not file.stat().st_size:
        return True
    try:
        content = yaml_loader.read(file)
    except (UserError, OSError):
        return False
    is_recipe = {"data", "train", "threads"} <= content.keys()
    return is_recipe or "per_device_train_batch_size" in content


def choose_trial(summary: Summary, confirmed: Summary | None, number: int | None) -> tuple[Configuration, str]:
    """The configuration to export, and why this one.

    Args:
        summary: the search's.
        confirmed: the finished confirmation's, if there is one.
        number: the trial that a person asked for; None: what the confirmation decides, else the search's best.

    Raises:
        UserError: the trial cannot be exported, or no configuration has a result yet.
    """
    if number is not None:
        return _asked_trial(summary, number), "as asked"
    decision = decide(confirmed) if confirmed is not None else None
    if decision is not None:
        return _decided_trial(summary, decision), f"{decision.subject}: {decision.reason}"
    if summary.best is None:
        name = summary.record.name
        raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` continues")
    return summary.best, "the search's best, not confirmed"


def _decided_trial(summary: Summary, decision: Decision) -> Configuration:
    """The search's configuration; where the search itself has none of the default recipe, the confirmation's."""
    if decision.arm.trial is not None:
        return summary.history[decision.arm.trial]
    training = next((training for training in decision.trainings if training.rungs), decision.trainings[0])
    return dataclasses.replace(training, number=NOT_SEARCHED, params=decision.arm.params, origin="default")


def _asked_trial(summary: Summary, number: int) -> Configuration:
    option = f"{summary.record.name}: --trial {number}"
    if number >= len(summary.history):
        raise UserError(f"{option}: there are configurations 0 to {len(summary.history) - 1}")
    trial = summary.history[number]
    if trial.params is None:
        raise UserError(f"{option}: its parameters are not sampled yet")
    if trial.origin == IMPORTED:
        raise UserError(f"{option}: was trained elsewhere, on data that only its log knows")
    return trial


def recipe_of(summary: Summary, confirmed: Summary | None, trial: Configuration) -> Recipe:
    """All that the final run needs, with what the study knows of it."""
    record = summary.record
    facts = StudyFacts.from_json(summary.facts)
    study_data = facts.known_data
    params = {"seed": record.seed, **(trial.params or {}), "max_steps": record.space["budget"]["max_steps"]}
    data = study_data.normalized(record.space["data"])
    data["fold"] = params.pop("fold", data.get("fold", 0))
    # What memory took: gradients summed over other micro-batches differ in their last bits.
    micro_batch = trial.metrics.get("micro_batch")
    if micro_batch and micro_batch < params.get("batch_size", TrainConfig.batch_size):
        params["micro_batch_size"] = micro_batch
    split = {}
    if not data["fold"]:
        split = split_facts(study_data.train, study_data.validation, study_data.test)
    if study_data.commit and not data.get("revision"):
        data["revision"] = study_data.commit  # what a branch pointed at when the study started
    return Recipe(
        DataConfig(**data),
        TrainConfig(**params),
        threads=facts.known_threads,
        fingerprint=study_data.fingerprint,
        supplement=study_data.supplement,
        split=split,
        versions=versions(),
        evidence=evidence(summary, confirmed, trial),
    )


def evidence(summary: Summary, confirmed: Summary | None, trial: Configuration) -> dict[str, Any]:
    """What the search found out about a trial: its scores, what it is better than, and the cost. Plain values."""
    record = summary.record
    facts = StudyFacts.from_json(summary.facts)
    model = model_of(trial)
    baseline = facts.baselines.get(model)
    is_wer = record.objective == "wer"  # else the intervals by clip are those of what is minimised
    imported = sum(configuration.origin == IMPORTED for configuration in summary.history)
    values = {
        "study": record.name,
        "trial": None if trial.number == NOT_SEARCHED else trial.number,
        "state": trial.state,
        "steps": trial.steps,
        "objective": None if is_wer else record.objective,
        "validation_wer": trial.metrics.get("wer", trial.value),
        "validation_cer": None if is_wer else trial.metrics.get("cer"),
        "validation_wer_long": trial.metrics.get("wer_long"),
        "validation_interval": intervals.as_json(intervals.interval(facts, trial)) if is_wer else None,
        "validation_wer_raw": trial.metrics.get("wer_raw"),
        "zero_shot_wer": baseline.wer if baseline else None,
        "zero_shot_interval": intervals.as_json(intervals.baseline_interval(facts, model)) if is_wer else None,
        "default": _default_result(summary, facts, is_wer),
        "configurations": len(summary.history) - imported,
        "states": dict(summary.counts),
        "search_seconds": round(summary.spent, 1),
        "searched": list(record.space["search"]),
        "imported": imported,
    }
    if confirmed is not None:
        values["confirm"] = _confirm_evidence(confirmed)
    return {key: value for key, value in values.items() if value not in (None, 0, {}) or key == "trial"}


def _default_result(summary: Summary, facts: StudyFacts, is_wer: bool) -> dict[str, Any] | None:
    """The default recipe's own result in the search."""
    default = records.default_configuration(summary.history)
    if default is None:
        return None
    interval = intervals.as_json(intervals.interval(facts, default)) if is_wer else None
    return {
        "trial": default.number,
        "steps": default.steps,
        "wer": default.metrics.get("wer", default.value),
        "interval": interval,
    }


def _confirm_evidence(confirmed: Summary) -> dict[str, Any]:
    result = verdict(confirmed)
    decision = decide(confirmed)
    assert result is not None
    assert decision is not None
    values = {
        "takes": decision.subject,
        "reason": decision.reason,
        "sentence": result.sentence(),
        "told_apart": result.is_significant,
        "cross_check": result.cross_check(),
        "recipes": [line.strip() for line in verdict_lines(confirmed) if line.startswith("  ")],
        "seconds": round(confirmed.spent, 1),
    }
    test_result = verdict(confirmed, "test")
    if test_result is not None:
        values["test"] = test_result.sentence()
        values["test_read"] = StudyFacts.from_json(confirmed.facts).test_read
    return values


def read_recipe(path: str) -> tuple[Recipe, list[str]]:
    """A recipe file, checked against every knob, and remarks on it.

    Raises:
        UserError: the file cannot be read, or a key or value is wrong.
    """
    raw = yaml_loader.read(path)
    root = Location(path)
    if "search" in raw and "data" in raw:
        fix = f"`tmsearch run --space {path}` searches, `tmsearch export STUDY -o FILE` then writes a recipe"
        raise root.error(f"a space file, not a recipe; {fix}")
    check_keys(raw, KEYS, root)
    data = _section(raw.get("data"), DATA, root.at("data"))
    if "dataset" not in data:
        raise root.at("data").at("dataset").error("missing; give what `tmsearch export` writes there")
    train = _section(raw.get("train"), TRAIN, root.at("train"))
    threads = raw.get("threads")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise root.at("threads").error("not a whole number from 1 on; leave it out, or give what the search used")
    for key in ("fingerprint", "supplement"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise root.at(key).error("not a string; leave it out, or give what `tmsearch export` writes there")
    recipe = Recipe(
        DataConfig(**data),
        TrainConfig(**train),
        threads or len(usable_cores()),
        raw.get("fingerprint"),
        split=_mapping(raw, "split"),
        versions=_mapping(raw, "versions"),
        evidence=_mapping(raw, "evidence"),
        supplement=raw.get("supplement"),
    )
    if raw.get("hash") in (None, recipe.hash):
        return _as_measured(recipe), _version_remarks(recipe)
    # A person may change anything by hand, but what was measured belongs to the recipe as it was.
    changed = f"{path}: changed since it was exported: its evidence is of another recipe, and is left out"
    return dataclasses.replace(recipe, evidence={}, split={}), [changed, *_version_remarks(recipe)]


def _as_measured(recipe: Recipe) -> Recipe:
    """The recipe with the normalizer that its evidence is after: those of before 0.2.0 name none."""
    if not recipe.evidence or recipe.data.normalizer is not None:
        return recipe
    if usual_normalizer(recipe.data.text_language) == "whisper":
        return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, normalizer="whisper"))


def _mapping(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, dict) else {}


def _version_remarks(recipe: Recipe) -> list[str]:
    installed = versions()
    differences = [
        f"{name} {version}, here {installed.get(name)}"
        for name, version in recipe.versions.items()
        if installed.get(name) != version
    ]
    return [f"found with {'; '.join(differences)}: the last bits may differ"] if differences else []


def _section(raw: Any, knobs: Mapping[str, Knob], location: Location) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise location.error("missing or not a mapping; `tmsearch export STUDY -o FILE` writes a whole recipe")
    check_keys(raw, tuple(knobs), location, "knob")
    return {name: check(knobs[name], value, location.at(name)) for name, value in raw.items()}
