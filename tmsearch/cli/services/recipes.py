"""A study's configuration as a recipe with its evidence, and a recipe file read again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from search import records, study
from search.errors import UserError
from search.records import IMPORTED, Configuration
from search.schedulers import racing
from search.space import yaml_loader
from search.space.errors import Location
from search.space.knobs import Knob, check, check_keys
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.commands.confirm import SUFFIX
from tmsearch.cli.services.knobs import DATA, TRAIN
from tmsearch.cli.services.verdicts import lines, recipes, verdict
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.recipe import Recipe, split_facts, versions
from tmsearch.trial.facts import StudyFacts

KEYS = ("data", "train", "threads", "fingerprint", "split", "versions", "evidence", "hash")


def confirmation(storage: Storage, summary: Summary) -> Summary | None:
    """The study's confirmation, once it has an answer."""
    name = summary.record.name + SUFFIX
    if name not in study.names(storage):
        return None
    found = study.summarize(study.open_study(storage, name))
    if StudyFacts.from_json(found.facts).confirms is None or not racing.race_state(found.history).over:
        return None
    return None if verdict(found) is None else found


def chosen(summary: Summary, confirmed: Summary | None, number: int | None) -> tuple[Configuration, str]:
    """The configuration to export, and why it: a person's, the confirmation's lowest mean, or the search's best."""
    name = summary.record.name
    if number is not None:
        if number >= len(summary.history):
            raise UserError(f"{name}: --trial {number}: there are configurations 0 to {len(summary.history) - 1}")
        if summary.history[number].params is None:
            raise UserError(f"{name}: --trial {number}: its parameters are not drawn yet")
        if summary.history[number].origin == IMPORTED:
            raise UserError(f"{name}: --trial {number}: was trained elsewhere, on data that its log alone knows")
        return summary.history[number], "as asked"
    if confirmed is not None:
        plan = {arm.name: arm.trial for arm in StudyFacts.from_json(confirmed.facts).plan.arms}
        raced = [one for one in recipes(confirmed) if one.trainings and not one.fate]
        first = min(raced, key=lambda one: sum(each.wer for each in one.trainings) / len(one.trainings), default=None)
        trial = plan.get(first.name) if first else None
        if trial is not None:
            return summary.history[trial], "the lowest mean of the confirmation"
    if summary.best is None:
        raise UserError(f"{name}: no configuration has a result yet; `tmsearch resume {name}` goes on")
    return summary.best, "the search's best"


def recipe(summary: Summary, confirmed: Summary | None, one: Configuration) -> Recipe:
    """All that the final run needs, with what the study knows of it."""
    record, facts = summary.record, StudyFacts.from_json(summary.facts)
    study_data = facts.known_data
    params = {"seed": record.seed, **(one.params or {}), "max_steps": record.space["budget"]["max_steps"]}
    data = {**record.space["data"], "fold": params.pop("fold", record.space["data"].get("fold", 0))}
    micro = one.metrics.get("micro_batch")  # what memory took: sums of other parts differ in their last bits
    if micro and micro < params.get("batch_size", TrainConfig.batch_size):
        params["micro_batch_size"] = micro
    parts = {}
    if not data["fold"]:
        parts = split_facts(study_data.train, study_data.validation, study_data.test)
    if study_data.commit and not data.get("revision"):
        data["revision"] = study_data.commit  # what a branch pointed at when the study began
    return Recipe(
        DataConfig(**data),
        TrainConfig(**params),
        threads=facts.known_threads,
        fingerprint=study_data.fingerprint,
        split=parts,
        versions=versions(),
        evidence=evidence(summary, confirmed, one),
    )


def evidence(summary: Summary, confirmed: Summary | None, one: Configuration) -> dict[str, Any]:
    """What the search found out: of this configuration, of what it is better than, and at which cost. Plain values."""
    record, facts = summary.record, StudyFacts.from_json(summary.facts)
    model = model_of(one)
    baseline, default = facts.baselines.get(model), _default(summary)
    own = [each for each in summary.history if each.origin != IMPORTED]
    found = {
        "study": record.name,
        "trial": one.number,
        "state": one.state,
        "steps": one.steps,
        "validation_wer": one.value,
        "validation_interval": intervals.as_json(intervals.interval(facts, one)),
        "validation_wer_raw": one.metrics.get("wer_raw"),
        "zero_shot_wer": baseline.wer if baseline else None,
        "zero_shot_interval": intervals.as_json(intervals.baseline_interval(facts, model)),
        "default": default,
        "configurations": len(own),
        "states": dict(summary.counts),
        "search_seconds": round(summary.spent, 1),
        "searched": list(record.space["search"]),
        "imported": len(summary.history) - len(own),
    }
    if confirmed is not None:
        found["confirm"] = _confirmed(confirmed)
    return {key: value for key, value in found.items() if value not in (None, 0, {}) or key == "trial"}


def _default(summary: Summary) -> dict[str, Any] | None:
    """The default recipe's own result in the search."""
    first = records.default_configuration(summary.history)
    if first is None:
        return None
    interval = intervals.as_json(intervals.interval(StudyFacts.from_json(summary.facts), first))
    return {"trial": first.number, "steps": first.steps, "wer": first.value, "interval": interval}


def _confirmed(confirmed: Summary) -> dict[str, Any]:
    said, tested = verdict(confirmed), verdict(confirmed, "test")
    assert said is not None
    return {
        "sentence": said.sentence(),
        "told_apart": said.is_significant,
        "cross_check": said.cross_check(),
        "recipes": [line.strip() for line in lines(confirmed) if line.startswith("  ")],
        "seconds": round(confirmed.spent, 1),
        **({"test": tested.sentence(), "test_read": StudyFacts.from_json(confirmed.facts).test_read} if tested else {}),
    }


def read_recipe(path: str) -> tuple[Recipe, list[str]]:
    """A recipe file, checked against every knob, and remarks on it; raises UserError."""
    raw, root = yaml_loader.read(path), Location(path)
    check_keys(raw, KEYS, root)
    data = _section(raw.get("data"), DATA, root.at("data"))
    if "dataset" not in data:
        raise root.at("data").at("dataset").error("missing; give what `tmsearch export` writes there")
    train = _section(raw.get("train"), TRAIN, root.at("train"))
    threads, fingerprint = raw.get("threads"), raw.get("fingerprint")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise root.at("threads").error("no whole number from 1 on; leave it out, or give what the search used")
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise root.at("fingerprint").error("no text; leave it out, or give what `tmsearch export` writes there")
    maps = {name: raw[name] if isinstance(raw.get(name), dict) else {} for name in ("split", "versions", "evidence")}
    found = Recipe(
        DataConfig(**data), TrainConfig(**train), threads or len(os.sched_getaffinity(0)), fingerprint, **maps
    )
    if raw.get("hash") in (None, found.hash):
        return found, _newer(found)
    # By hand a person may change anything; what was measured was measured of something else.
    changed = f"{path}: changed since it was exported: its evidence is of another recipe, and is left out"
    return dataclasses.replace(found, evidence={}, split={}), [changed, *_newer(found)]


def _newer(found: Recipe) -> list[str]:
    here = versions()
    other = [f"{name} {was}, here {here.get(name)}" for name, was in found.versions.items() if here.get(name) != was]
    return [f"found with {'; '.join(other)}: the last bits may differ"] if other else []


def _section(raw: Any, knobs: Mapping[str, Knob], place: Location) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise place.error("missing or no mapping; `tmsearch export STUDY -o FILE` writes a whole recipe")
    check_keys(raw, tuple(knobs), place, "knob")
    return {name: check(knobs[name], value, place.at(name)) for name, value in raw.items()}
