"""What is looked at before a study exists: its data, its split, its models."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from search.execution.messages import Checked, CheckJob
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.errors import InputError
from tmsearch.trial.facts import DataFacts
from tmsearch.trial.workbench import Workbench

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus


def check(bench: Workbench, job: CheckJob) -> Checked:
    """Load the data and look at the models before anything is written; what the study keeps of both."""
    from tmsearch.data import splits
    from tmsearch.model import context, cost, whisper

    data = DataConfig(**job.data)
    corpus = bench.corpus(data)
    split = splits.split(corpus, data)
    models = {}
    seconds = [clip.seconds for clip in corpus.clips]
    for params in job.candidates:
        config = TrainConfig(**params)
        facts = whisper.describe(config.model, config.model_revision)
        rule = context.context_rule(config, facts.context_seconds, max(seconds))
        _fits(corpus, rule.seconds, config.model)
        estimate = cost.estimate(facts, config, seconds=rule.mean_seconds(seconds))
        # Weights and AdamW's two moments, float32; adapters take less.
        saved = 3 * 4 * facts.parameters
        models[config.model] = {**dataclasses.asdict(facts), **dataclasses.asdict(estimate), "checkpoint_bytes": saved}
    data_facts = DataFacts(
        fingerprint=corpus.fingerprint,
        clips=len(corpus.clips),
        seconds=sum(clip.seconds for clip in corpus.clips),
        train=split.train,
        validation=split.validation,
        test=split.test,
        grouped_by=split.grouped_by,
        dropped=tuple({"name": row.name, "reason": row.reason} for row in corpus.dropped),
        longest=max(clip.seconds for clip in corpus.clips),
        commit=corpus.commit,  # what a branch of the hub pointed at
    )
    rate = cost.matmul_rate(len(os.sched_getaffinity(0))) if job.measure else None
    return Checked(data_facts.to_json(), models, rate)


def _fits(corpus: Corpus, seconds: float, name: str) -> None:
    """Raise InputError where a clip is longer than the model hears: its text could not be learned."""
    long = [clip.name for clip in corpus.clips if clip.seconds > seconds + 0.01]
    if long:
        longest = max(clip.seconds for clip in corpus.clips)
        raise InputError(
            f"{name}: train.context_seconds: {len(long)} clips are longer than the {seconds:g} s that the model hears, "
            f"such as {long[0]}; the longest has {longest:.1f} s: raise it, or take another model, or drop them"
        )
