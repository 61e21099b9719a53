"""What a study keeps for all its trials, as records; `StudyFacts.from_json` reads them from the ledger's facts.

The keys and their JSON values are persisted and do not change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.evaluation.scores import LONG_OBJECTIVES
from tmsearch.languages import usual_normalizer
from tmsearch.recipe import with_supplement

DATA = "data"
THREADS = "threads"
CONFIRMS = "confirms"
TEST_READ = "test_read"
_BASELINE = "baseline:"
_WORDS = "words:"
_MICRO_BATCH = "micro_batch:"
_EVAL_BATCH = "eval_batch:"
_TEST = "test:"
_KEEP = "keep:"


def baseline_key(model: str) -> str:
    return f"{_BASELINE}{model}"


def keep_key(model: str) -> str:
    return f"{_KEEP}{model}"


def words_key(fold: int) -> str:
    return f"{_WORDS}{fold}"


def test_key(number: int) -> str:
    return f"{_TEST}{number}"


def micro_batch_key(config: TrainConfig, device_name: str) -> str:
    """Names everything that memory depends on: a micro-batch found for a key holds for all of a study."""
    masks = ", dropout" if config.dropout or config.attention_dropout else ""  # they are kept for the backward pass
    recomputed = ", gradient checkpointing" if config.gradient_checkpointing else ""
    extra = ", extra speech" if config.extra_share else ""  # of other lengths
    texts = ", split texts" if config.bpe_dropout else ""  # which are longer
    return (
        f"{_MICRO_BATCH}{config.model}@{device_name}: batch {config.batch_size}, {_context(config)}, "
        f"{_trained(config)}{recomputed}{masks}{extra}{texts}"
    )


def eval_batch_key(config: TrainConfig, device_name: str, *, full_context: bool = False) -> str:
    """Names what the memory of an evaluation depends on, the training's state beside it included.

    With `full_context` it is the baseline's, of a model that nothing was trained of.
    """
    model = f"{_EVAL_BATCH}{config.model}@{device_name}: "
    if full_context:
        return f"{model}untrained, full context, {config.precision}"
    return f"{model}{_context(config)}, {_trained(config)}"


def _context(config: TrainConfig) -> str:
    return f"context {config.context_seconds} by {config.context_step:g}{_windows(config)}"


def _trained(config: TrainConfig) -> str:
    """Which weights are trained, and in which number format."""
    trained = f"lora {config.lora_r}" if config.lora_r else f"frozen {config.freeze_encoder_layers}"
    if config.lora_r and config.lora_targets != TrainConfig.lora_targets:
        trained += f" on {config.lora_targets}"
    if config.freeze_encoder:
        trained = "decoder"
    differences = {
        ", low memory": config.low_memory,
        ", 8-bit moments": config.optimizer == "adamw_8bit",
        ", averaged": config.average_share > 0,
    }
    return f"{trained}, {config.precision}{''.join(text for text in differences if differences[text])}"


def _windows(config: TrainConfig) -> str:
    """How long examples may be, in a key; empty for single clips, as before there were windows."""
    if not config.window_share:
        return ""
    return f", windows of {config.window_seconds:g}{' with prompts' if config.window_prompts else ''}"


def _device_of(key: str) -> str:
    """The device's name in a `micro_batch_key`; empty where there is none."""
    return key.partition("@")[2].partition(": batch ")[0]


@dataclass(frozen=True)
class DataFacts:
    """The study's dataset as it was at the start: fingerprint, sizes in clips and seconds, and clip names by part."""

    fingerprint: str
    clips: int
    seconds: float
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    grouped_by: tuple[str, ...] = ("sentence",)
    dropped: tuple[Mapping[str, str], ...] = ()  # name and reason of each unusable row
    longest: float | None = None  # seconds
    commit: str | None = None  # of a hub dataset
    normalizer: str | None = None  # that its texts are compared after; None: Whisper's, as before 0.2.0
    remarks: tuple[str, ...] = ()  # what a person should know of the data, a line each
    beside: tuple[Mapping[str, Any], ...] = ()  # what is trained on beside it, see Supplement.to_json
    supplement: str | None = None  # its fingerprint

    @property
    def training_fingerprint(self) -> str:
        """Of all that is trained on."""
        return with_supplement(self.fingerprint, self.supplement)

    def normalized(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The study's data section with the normalizer that its WERs are after, where its language has a choice."""
        chosen = data.get("normalizer")
        language = DataConfig(**{**data, "normalizer": None}).text_language
        if chosen is None and usual_normalizer(language) != "whisper":
            chosen = self.normalizer or "whisper"
        return dict(data) if chosen is None else {**data, "normalizer": chosen}

    def to_json(self) -> dict[str, Any]:
        beside = {"beside": self.beside, "supplement": self.supplement} if self.supplement else {}
        return {
            "fingerprint": self.fingerprint,
            "commit": self.commit,
            "clips": self.clips,
            "seconds": self.seconds,
            "longest": self.longest,
            "split": {
                "train": self.train,
                "validation": self.validation,
                "test": self.test,
                "grouped_by": self.grouped_by,
            },
            "dropped": self.dropped,
            "normalizer": self.normalizer,
            "remarks": self.remarks,
            **beside,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataFacts:
        split = data["split"]
        return cls(
            fingerprint=data["fingerprint"],
            clips=data["clips"],
            seconds=data["seconds"],
            train=tuple(split["train"]),
            validation=tuple(split["validation"]),
            test=tuple(split["test"]),
            grouped_by=tuple(split.get("grouped_by", ("sentence",))),
            dropped=tuple(data["dropped"]),
            longest=data.get("longest"),
            commit=data.get("commit"),
            normalizer=data.get("normalizer"),
            remarks=tuple(data.get("remarks", ())),
            beside=tuple(data.get("beside", ())),
            supplement=data.get("supplement"),
        )


@dataclass(frozen=True)
class ModelNeeds:
    """What training one model takes, estimated from its shape; the answer to a check has it, no fact of a study."""

    parameters: int
    flops_per_step: float
    memory_bytes: float
    checkpoint_bytes: int
    heard_seconds: float  # of a clip, on average, thinned silence included
    card: Mapping[str, Any] | None  # the GPU that was measured, as cost.Card has it
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    vocab_size: int
    n_mels: int

    @classmethod
    def from_json(cls, model: Mapping[str, Any]) -> ModelNeeds:
        return cls(**{item.name: model[item.name] for item in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Baseline:
    """Zero-shot error rates of an untouched checkpoint; its errors by validation clip, where they were kept."""

    wer: float
    wer_raw: float | None = None
    cer: float | None = None
    clips: int | None = None
    errors: tuple[int, ...] | None = None
    wer_long: float | None = None  # of the validation clips as long recordings, where the objective asks for it

    def rate(self, objective: str) -> float:
        """What the study minimises of it, one of search.space.budget.OBJECTIVES."""
        if objective == "cer" and self.cer is not None:
            return self.cer
        if objective in LONG_OBJECTIVES and self.wer_long is not None:
            return self.wer_long if objective == "wer_long" else (self.wer + self.wer_long) / 2
        return self.wer

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, baseline: Mapping[str, Any]) -> Baseline:
        errors = baseline.get("errors")
        return cls(
            wer=baseline["wer"],
            wer_raw=baseline.get("wer_raw"),
            cer=baseline.get("cer"),
            clips=baseline.get("clips"),
            errors=None if errors is None else tuple(errors),
            wer_long=baseline.get("wer_long"),
        )


@dataclass(frozen=True)
class TestScores:
    """A training on the locked test split: errors and reference words by clip, and the raw WER."""

    __test__ = False  # not a test class of pytest's

    errors: tuple[int, ...]
    words: tuple[int, ...]
    wer_raw: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, scores: Mapping[str, Any]) -> TestScores:
        return cls(tuple(scores["errors"]), tuple(scores["words"]), scores["wer_raw"])


@dataclass(frozen=True)
class ArmPlan:
    """One recipe of a confirmation: its name, parameters and drawn values, and the search's trial if it has one."""

    name: str
    params: Mapping[str, Any]
    drawn: Mapping[str, Any]
    trial: int | None = None

    def to_json(self) -> dict[str, Any]:
        trial = {} if self.trial is None else {"trial": self.trial}
        return {"name": self.name, **trial, "params": dict(self.params), "drawn": dict(self.drawn)}

    @classmethod
    def from_json(cls, arm: Mapping[str, Any]) -> ArmPlan:
        return cls(arm["name"], arm["params"], arm["drawn"], arm.get("trial"))


@dataclass(frozen=True)
class ConfirmationPlan:
    """What makes a study a confirmation: of which search, and its arms, seeds and folds."""

    of: str
    top: int  # leaders of the search that race
    folds: int  # 0: the study's own split
    seeds: int  # trainings of each arm, if all had as many
    arms: tuple[ArmPlan, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "top": self.top,
            "folds": self.folds,
            "seeds": self.seeds,
            "arms": [arm.to_json() for arm in self.arms],
        }

    @classmethod
    def from_json(cls, plan: Mapping[str, Any]) -> ConfirmationPlan:
        arms = tuple(ArmPlan.from_json(arm) for arm in plan["arms"])
        return cls(plan["of"], plan["top"], plan["folds"], plan["seeds"], arms)


@dataclass(frozen=True)
class StudyFacts:
    """All facts of a study that the application knows; `from_json` reads them from the ledger's keys.

    `words` holds the reference words by validation clip of each fold, `micro_batches` clips a forward pass by
    `micro_batch_key`, `eval_batches` clips decoded together by `eval_batch_key`, `tests` the test scores by trial
    number.
    """

    data: DataFacts | None = None
    threads: int | None = None
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    words: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    micro_batches: Mapping[str, int] = field(default_factory=dict)
    eval_batches: Mapping[str, int] = field(default_factory=dict)
    confirms: ConfirmationPlan | None = None
    test_read: str | None = None  # the day on which the test split was read
    kept: Mapping[str, float] = field(default_factory=dict)  # WERs of untouched models on data.keep
    tests: Mapping[int, TestScores] = field(default_factory=dict)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> StudyFacts:
        baselines = {}
        words = {}
        micro_batches = {}
        eval_batches = {}
        tests = {}
        kept = {}
        for key, value in sorted(facts.items()):
            name = key.partition(":")[2]
            if key.startswith(_BASELINE):
                baselines[name] = Baseline.from_json(value)
            elif key.startswith(_WORDS):
                words[int(name)] = tuple(value)
            elif key.startswith(_MICRO_BATCH):
                micro_batches[key] = value
            elif key.startswith(_EVAL_BATCH):
                eval_batches[key] = value
            elif key.startswith(_KEEP):
                kept[name] = value
            elif key.startswith(_TEST):
                tests[int(name)] = TestScores.from_json(value)
        data = facts.get(DATA) or {}
        plan = facts.get(CONFIRMS)
        return cls(
            data=DataFacts.from_json(data) if "split" in data else None,
            threads=facts.get(THREADS),
            baselines=baselines,
            words=words,
            micro_batches=micro_batches,
            eval_batches=eval_batches,
            confirms=ConfirmationPlan.from_json(plan) if plan else None,
            test_read=facts.get(TEST_READ),
            kept=kept,
            tests=tests,
        )

    @property
    def known_data(self) -> DataFacts:
        """The data of a study that has been checked; raises ValueError for another."""
        if self.data is None:
            raise ValueError("the study does not know its data")
        return self.data

    @property
    def plan(self) -> ConfirmationPlan:
        """The plan of a confirmation; raises ValueError for another study."""
        if self.confirms is None:
            raise ValueError("the study is not a confirmation")
        return self.confirms

    @property
    def known_threads(self) -> int:
        """CPU threads of each training; raises ValueError in a study that was not made by `tmsearch run`."""
        if self.threads is None:
            raise ValueError("the study does not know its threads")
        return self.threads

    @property
    def devices(self) -> list[str]:
        """The GPUs that trained, or cpu: the study remembers a micro-batch of each."""
        return sorted({_device_of(key) for key in self.micro_batches} - {""})
