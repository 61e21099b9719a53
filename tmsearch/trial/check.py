"""The check before a study is made: its data, its split, its models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.execution.messages import Checked, CheckJob
from search.platforms import usable_cores
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data_quality import pace
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import LONG_OBJECTIVES
from tmsearch.languages import usual_normalizer
from tmsearch.trial.facts import DataFacts
from tmsearch.trial.workbench import Workbench

if TYPE_CHECKING:
    from tmsearch.data.augmentation.supplement import Supplement
    from tmsearch.data.corpus import Corpus
    from tmsearch.data.splits import Split
    from tmsearch.features.dataset import Speech
    from tmsearch.model.context import ContextRule
    from tmsearch.model.whisper import Whisper

_ROUNDING_SECONDS = 0.01  # a clip may be this much longer than the context


def check(workbench: Workbench, job: CheckJob) -> Checked:
    """Load the data, check that each model can be trained on it, and estimate what it needs; writes nothing.

    The first candidate of a model is what the estimate is of. Raises InputError.
    """
    from tmsearch import devices
    from tmsearch.data import splits
    from tmsearch.training.optim import optimizer

    devices.uses_graphs(devices.device())  # both raise where their variable says what there is not
    data = DataConfig(**job.data)
    corpus = workbench.corpus(data)
    split = splits.split(corpus, data)
    if data.keep is not None:
        workbench.kept_speech(data, Path())
    supplement = workbench.supplement(data, split)
    card = _measured_card() if job.measure else None
    models: dict[str, dict[str, Any]] = {}
    for params in job.candidates:
        config = TrainConfig(**params)
        supplement.check(config)
        if config.model not in models:
            card_of_model = _checked_model(corpus, split, supplement, data, config)
            models[config.model] = {**card_of_model, "card": card}
            _check_objective(job.objective, config)
        optimizer.check_installed(config)
        _check_targets(config)
    if supplement.noise and job.candidates and not any(params.get("noise_db") is not None for params in job.candidates):
        raise InputError(f"data.noise: {data.noise}: is never heard; give train.noise_db, such as 10, or leave it out")
    rate = None
    if job.measure:
        from tmsearch.machine import device_speed

        rate = device_speed.matmul_rate(len(usable_cores()))
    normalizer = data.normalizer or usual_normalizer(data.text_language)
    return Checked(data_facts(corpus, split, normalizer, supplement).to_json(), models, rate)


def _measured_card() -> dict[str, Any] | None:
    """This machine's GPU as cost.Card has it, as JSON: products and copies are measured; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    from tmsearch.machine import device_speed
    from tmsearch.model import cost

    products = cost.SHARE_OF_PRODUCTS * device_speed.matmul_rate(1, bf16=True)
    card = cost.Card(
        name=torch.cuda.get_device_name(),
        gigabytes=torch.cuda.get_device_properties(0).total_memory / cost.GIGA,
        products=products / cost.TERA,
        memory=device_speed.copy_rate() / cost.TERA,
    )
    return dataclasses.asdict(card)


def _checked_model(
    corpus: Corpus, split: Split, supplement: Supplement, data: DataConfig, config: TrainConfig
) -> dict[str, Any]:
    """What a model is and needs, as JSON; raises InputError where it cannot be trained on all of the clips."""
    from tmsearch.features.dataset import Speech
    from tmsearch.model import context, cost, whisper

    model = whisper.describe(config.model, config.model_revision)
    seconds = [clip.seconds for clip in corpus.clips]
    rule = context.context_rule(config, model.context_seconds, max(seconds))
    _check_lengths(corpus, rule.seconds, model.context_seconds, config.model)
    speech = Speech(corpus, split, data.language, data.task, cache=Path(), supplement=supplement)
    outline = whisper.outline(config)
    speech.label_ids([clip.name for clip in corpus.clips], outline)
    heard_seconds, label_tokens = _mean_of_all(config, model.context_seconds, rule, speech, outline)
    estimate = cost.estimate(model, config, label_tokens, heard_seconds)
    return {
        **dataclasses.asdict(model),
        **dataclasses.asdict(estimate),
        "checkpoint_bytes": cost.checkpoint_bytes(model, config),
        "heard_seconds": heard_seconds,
    }


def _mean_of_all(
    config: TrainConfig, model_seconds: float, rule: ContextRule, speech: Speech, outline: Whisper
) -> tuple[float, float]:
    """`_mean_example` over the study's own clips and the extra ones, as they are drawn; raises InputError."""
    from tmsearch.features import bpe_dropout, training_clips
    from tmsearch.model import context

    shares = speech.supplement.shares(config)
    own_seconds, own_tokens = mean_example(config, model_seconds, rule, [clip.seconds for clip in speech.corpus.clips])
    heard_seconds = (1 - sum(shares)) * own_seconds
    label_tokens = (1 - sum(shares)) * own_tokens
    for entry, share in zip(speech.supplement.extra, shares, strict=True):
        if not share:
            continue
        extra = training_clips.extra_speech(outline, speech, entry, config)
        lengths = extra.seconds(extra.split.train)
        extra_rule = context.for_windows(rule, max(lengths))
        seconds, tokens = mean_example(config, model_seconds, extra_rule, lengths)
        heard_seconds += share * seconds
        label_tokens += share * tokens
    return heard_seconds, label_tokens * bpe_dropout.growth(outline, speech.corpus.clips, config)


def mean_example(
    config: TrainConfig, model_seconds: float, rule: ContextRule, seconds: Sequence[float]
) -> tuple[float, float]:
    """Seconds that are encoded of an example on average, and its label tokens, windows included."""
    from tmsearch.features import windows
    from tmsearch.model import context, cost

    clip_seconds = rule.mean_seconds(seconds)
    share = config.window_share
    if not share:
        return clip_seconds, cost.LABEL_TOKENS
    length, clips = windows.mean_window(config, model_seconds, sum(seconds) / len(seconds))
    window_seconds = context.for_windows(rule, length).mean_seconds([length])
    tokens = clips * cost.LABEL_TOKENS
    return (1 - share) * clip_seconds + share * window_seconds, (1 - share) * cost.LABEL_TOKENS + share * tokens


def _check_objective(objective: str, config: TrainConfig) -> None:
    """Raise InputError where long recordings are judged and the model knows no times, by which it would hear them."""
    from tmsearch.model import tokens, whisper

    if objective in LONG_OBJECTIVES and tokens.first_time_id(whisper.outline(config)) is None:
        raise InputError(
            f"budget.objective: {objective}: {config.model} knows no times, and hears no long recordings without; take "
            "wer or cer, or another model"
        )


def _check_targets(config: TrainConfig) -> None:
    """Raise InputError where adapters are wanted on modules that the model does not have."""
    from tmsearch.model import trainable, whisper

    if config.lora_r:
        trainable.check_targets(whisper.outline(config), config)


def data_facts(
    corpus: Corpus, split: Split, normalizer: str | None = None, supplement: Supplement | None = None
) -> DataFacts:
    """What a study keeps of its data, and of what is beside it; its texts are compared after `normalizer`."""
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
        normalizer=normalizer,
        remarks=(*corpus.notes[1:], *pace.remarks(corpus.clips)),
        beside=tuple(supplement.to_json()) if supplement else (),
        supplement=supplement.fingerprint if supplement else None,
    )


def _check_lengths(corpus: Corpus, context_seconds: float, most_seconds: float, model: str) -> None:
    """Raise InputError where a clip is longer than the model's context: the end of its text could not be learned.

    Args:
        corpus: the clips.
        context_seconds: the longest context of this study.
        most_seconds: what the model takes at most.
        model: its name.
    """
    long = [clip.name for clip in corpus.clips if clip.seconds > context_seconds + _ROUNDING_SECONDS]
    if long:
        longest = max(clip.seconds for clip in corpus.clips)
        fix = "raise it, or " if context_seconds < most_seconds else ""
        raise InputError(
            f"{model}: train.context_seconds: {len(long)} clips are longer than the {context_seconds:g} s that the "
            f"model hears, such as {long[0]}; the longest has {longest:.1f} s: {fix}take another model, or drop them"
        )
