"""The check before a study is made: its data, its split, its models."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from search.execution.messages import Checked, CheckJob
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data_quality import pace
from tmsearch.errors import InputError
from tmsearch.trial.facts import DataFacts
from tmsearch.trial.workbench import Workbench

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus
    from tmsearch.data.splits import Split

_ROUNDING_SECONDS = 0.01  # a clip may be this much longer than the context
_BYTES_A_PARAMETER = 3 * 4  # of a checkpoint: the weight and AdamW's two moments in float32; adapters take less


def check(workbench: Workbench, job: CheckJob) -> Checked:
    """Load the data and estimate what each model needs; writes nothing. Raises InputError."""
    from tmsearch.data import splits
    from tmsearch.model import context, cost, whisper

    data = DataConfig(**job.data)
    corpus = workbench.corpus(data)
    split = splits.split(corpus, data)
    seconds = [clip.seconds for clip in corpus.clips]
    models = {}
    for params in job.candidates:
        config = TrainConfig(**params)
        model = whisper.describe(config.model, config.model_revision)
        rule = context.context_rule(config, model.context_seconds, max(seconds))
        _check_lengths(corpus, rule.seconds, config.model)
        estimate = cost.estimate(model, config, seconds=rule.mean_seconds(seconds))
        models[config.model] = {
            **dataclasses.asdict(model),
            **dataclasses.asdict(estimate),
            "checkpoint_bytes": _BYTES_A_PARAMETER * model.parameters,
        }
    rate = cost.matmul_rate(len(os.sched_getaffinity(0))) if job.measure else None
    return Checked(data_facts(corpus, split).to_json(), models, rate)


def data_facts(corpus: Corpus, split: Split) -> DataFacts:
    """What a study keeps of its data."""
    seconds = [clip.seconds for clip in corpus.clips]
    return DataFacts(
        fingerprint=corpus.fingerprint,
        clips=len(corpus.clips),
        seconds=sum(seconds),
        train=split.train,
        validation=split.validation,
        test=split.test,
        grouped_by=split.grouped_by,
        dropped=tuple(dataclasses.asdict(row) for row in corpus.dropped),
        longest=max(seconds),
        commit=corpus.commit,
        remarks=(*corpus.notes[1:], *pace.remarks(corpus.clips)),
    )


def _check_lengths(corpus: Corpus, context_seconds: float, model: str) -> None:
    """Raise InputError where a clip is longer than the model's context: the end of its text could not be learned."""
    long = [clip.name for clip in corpus.clips if clip.seconds > context_seconds + _ROUNDING_SECONDS]
    if long:
        longest = max(clip.seconds for clip in corpus.clips)
        raise InputError(
            f"{model}: train.context_seconds: {len(long)} clips are longer than the {context_seconds:g} s that the "
            f"model hears, such as {long[0]}; the longest has {longest:.1f} s: raise it, or take another model, or "
            "drop them"
        )
