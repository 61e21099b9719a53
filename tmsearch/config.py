"""The only list of knobs: every setting of a fine-tune and its data, with its limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tmsearch.languages import code_if_known, language_code
from tmsearch.model_sizes import recommended_learning_rate

# Whisper's own normalizers; the basic one with combining marks kept within words.
NORMALIZERS = ("whisper", "marks")
NORMALIZATIONS = ("none", "peak", "rms", "loudness")


def knob(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    recommended: Callable[[Mapping[str, Any]], float] | None = None,
    fixed_per_study: bool = False,
    canonical: Callable[[Any], Any] | None = None,
    items: type | None = None,
) -> Any:
    """A dataclass field that carries its own limits; `items` is the dataclass of each item, where it is a tuple."""
    limits = {"help": help, "low": low, "high": high, "choices": choices, "recommended": recommended}
    limits["fixed_per_study"] = fixed_per_study
    limits["canonical"] = canonical
    limits["items"] = items
    if default is dataclasses.MISSING:
        return field(metadata=limits)
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of one fine-tune. Rates are per optimizer step, units as named."""

    model: str = knob("openai/whisper-small", "hub id, folder, or demo/micro")
    model_revision: str | None = knob(None, "branch, tag or commit of the model on the hub")
    max_steps: int = knob(800, "optimizer steps that the schedule spans", low=1, high=10_000_000)
    batch_size: int = knob(16, "clips an optimizer step", low=1, high=65_536)
    micro_batch_size: int | None = knob(
        None, "most clips a forward pass; none: as many as fit in memory", low=1, high=65_536
    )
    learning_rate: float = knob(1e-5, "peak rate of AdamW", low=1e-12, high=10.0, recommended=recommended_learning_rate)
    warmup_steps: int = knob(50, "steps of linear warmup", low=0, high=10_000_000)
    schedule: str = knob("linear", "decay after the warmup", choices=("linear", "cosine", "constant"))
    weight_decay: float = knob(0.0, "AdamW's decoupled decay", low=0.0, high=10.0)
    adam_beta1: float = knob(0.9, "AdamW's first moment", low=0.0, high=0.9999)
    adam_beta2: float = knob(0.999, "AdamW's second moment", low=0.0, high=0.99999)
    adam_epsilon: float = knob(1e-8, "AdamW's denominator", low=1e-16, high=1.0)
    max_grad_norm: float = knob(1.0, "gradient norm to clip to; 0: never", low=0.0, high=1e6)
    average_share: float = knob(
        0.0, "share of the steps so far that scored and exported weights are the average of; 0: off", low=0.0, high=1.0
    )
    layer_decay: float = knob(1.0, "factor on the rate for each layer further from the output", low=0.01, high=1.0)
    label_smoothing: float = knob(0.0, "probability mass given to the other tokens", low=0.0, high=0.99)
    dropout: float = knob(0.0, "dropout in every block", low=0.0, high=0.9)
    attention_dropout: float = knob(0.0, "dropout on attention weights", low=0.0, high=0.9)
    stochastic_depth: float = knob(0.0, "probability that a layer is skipped in training", low=0.0, high=0.9)
    freeze_encoder: bool = knob(False, "train the decoder only")
    freeze_encoder_layers: int = knob(0, "first encoder layers that are not trained", low=0, high=1000)
    lora_r: int = knob(0, "rank of LoRA adapters; 0: full fine-tune", low=0, high=4096)
    lora_alpha: float = knob(64.0, "LoRA's scale", low=1e-3, high=1e5)
    lora_dropout: float = knob(0.05, "dropout in front of the adapters", low=0.0, high=0.9)
    lora_targets: str = knob("q_proj,v_proj", "modules that get an adapter, joined by commas")
    normalize_audio: bool | str = knob(
        False, "gain a clip is brought to; true: peak", choices=(True, False, *NORMALIZATIONS)
    )
    spec_time_masks: int = knob(0, "SpecAugment masks over time", low=0, high=100)
    spec_time_width: float = knob(0.1, "longest time mask, share of the clip", low=0.0, high=1.0)
    spec_freq_masks: int = knob(0, "SpecAugment masks over mel bins", low=0, high=100)
    spec_freq_width: int = knob(27, "widest frequency mask, mel bins", low=0, high=128)
    speed: float = knob(0.0, "largest relative change of speed", low=0.0, high=0.5)
    level_db: float = knob(0.0, "largest change of level, dB", low=0.0, high=60.0)
    throat_filter: float = knob(0.0, "share of clips passed through a random throat filter", low=0.0, high=1.0)
    noise_db: float | None = knob(
        None, "speech over the noise of data.noise that is mixed under it, dB; none: no noise", low=-30.0, high=80.0
    )
    noise_share: float = knob(0.5, "share of examples with noise, where noise_db is given", low=0.0, high=1.0)
    extra_share: float | None = knob(
        None, "share of examples from data.extra, in the proportion of its shares; none: their sum", low=0.0, high=1.0
    )
    bpe_dropout: float = knob(0.0, "probability that a merge of a text's tokens is skipped", low=0.0, high=0.9)
    window_share: float = knob(
        0.0, "share of examples that are windows: several clips in one, as in a long recording", low=0.0, high=1.0
    )
    window_times: float = knob(1.0, "share of windows whose texts stand between their times", low=0.0, high=1.0)
    window_prompts: float = knob(0.4, "share of windows behind the text before them, not learnt", low=0.0, high=1.0)
    window_gap: float = knob(1.2, "longest pause between the clips of a window, seconds", low=0.2, high=10.0)
    window_seconds: float = knob(30.0, "longest window, seconds", low=1.0, high=30.0)
    clip_times: float = knob(0.0, "share of single clips whose text stands between its times", low=0.0, high=1.0)
    context_seconds: float | None = knob(
        None,
        "most audio that the encoder takes, seconds; none: what the longest clip needs",
        low=1.0,
        high=30.0,
        fixed_per_study=True,
    )
    context_step: float = knob(
        0.5,
        "a clip's context is a multiple of this, seconds; 0: that of the longest for all",
        low=0.0,
        high=30.0,
        fixed_per_study=True,
    )
    context_silence: bool = knob(
        True, "the silence that Whisper expects behind a clip is encoded, thinned; false: cut off", fixed_per_study=True
    )
    context_quiet: bool = knob(
        False,
        "the quiet before and behind a clip's speech is thinned as the silence behind the clip is",
        fixed_per_study=True,
    )
    precision: str = knob("auto", "auto: bf16 autocast where the device has it", choices=("auto", "float32", "bf16"))
    low_memory: bool = knob(False, "bf16 weights and moments, rounded at random: half of full training's memory")
    optimizer: str = knob(
        "adamw",
        "adamw_8bit: moments in 8 bits, by torchao (pip install 'tmsearch[8bit]')",
        choices=("adamw", "adamw_8bit"),
    )
    gradient_checkpointing: bool = knob(
        False, "layers are computed again for their gradients instead of kept: a third more time, far less memory"
    )
    exact_checkpoints: bool = knob(
        True, "checkpoints hold AdamW's moments exactly; false: in bf16, a third less to write"
    )
    compile: bool | str = knob(
        "auto",
        "for a GPU, true: whole layers; auto: small kernels, and whole layers in long trainings; false: nothing",
        choices=("auto", True, False),
    )
    eval_batch_size: int = knob(32, "clips decoded together", low=1, high=65_536)
    seed: int = knob(0, "of batch order, dropout and augmentation", low=0, high=2**31 - 1)

    @property
    def normalization(self) -> str:
        """`normalize_audio` as one of NORMALIZATIONS."""
        if isinstance(self.normalize_audio, bool):
            return "peak" if self.normalize_audio else "none"
        return self.normalize_audio


# Knobs that came together, for windows. Where all are at their defaults, training is as it was before them.
_USE_KNOBS = ("window_share", "window_times", "window_prompts", "window_gap", "window_seconds", "clip_times")
# Each by itself.
_LATER_KNOBS = (
    "optimizer",
    "gradient_checkpointing",
    "average_share",
    "context_quiet",
    "noise_db",
    "noise_share",
    "extra_share",
    "bpe_dropout",
)

# What a new study trains with where its space says nothing, by measurement (studies/README.md, 2026-11-29 and -30). The
# fields' own defaults are what studies and recipes of before have.
NEW_STUDIES: Mapping[str, Any] = {"window_share": 0.5, "window_prompts": 0.8, "clip_times": 0.5}


def knob_values(config: TrainConfig) -> dict[str, Any]:
    """Every knob of `config` by name, as files and fingerprints have it.

    Knobs that came later are left out where they are off: recipes and checkpoints of before keep their text and hash.
    """
    values = dataclasses.asdict(config)
    defaults = dataclasses.asdict(TrainConfig())
    if all(values[name] == defaults[name] for name in _USE_KNOBS):
        for name in _USE_KNOBS:
            del values[name]
    for name in _LATER_KNOBS:
        if values[name] == defaults[name]:
            del values[name]
    return values


@dataclass(frozen=True)
class ExtraData:
    """Speech that is trained on beside the dataset, and never scored on."""

    dataset: str = knob(dataclasses.MISSING, "dataset, as in data.dataset")
    share: float = knob(0.25, "share of the examples that are drawn from it", low=0.0, high=1.0)
    throat: bool = knob(False, "heard through the filter learnt from the dataset: for speech of a microphone in air")
    revision: str | None = knob(None, "branch, tag or commit of it on the hub")
    audio_column: str | None = knob(None, "none: found by its name or type")
    channel: int | None = knob(None, "channel of its recordings, from 0; none: their average", low=0, high=63)
    text_column: str | None = knob(None, "none: found by its name")


@dataclass(frozen=True)
class DataConfig:
    """Which speech, and how it is split."""

    dataset: str = knob(dataclasses.MISSING, "hub id, folder of audio + metadata.csv, parquet, save_to_disk, or demo")
    revision: str | None = knob(None, "branch, tag or commit of the dataset on the hub")
    language: str = knob("en", "code of the spoken language, or its English name", canonical=language_code)
    task: str = knob("transcribe", "what the model does", choices=("transcribe", "translate"))
    validation: float | int = knob(0.15, "fraction of the clips, or their count", low=0)
    test: float | int = knob(0.15, "fraction of the clips, or their count; locked", low=0)
    split_seed: int = knob(42, "of the split", low=0, high=2**31 - 1)
    fold: int = knob(0, "which of the disjoint validation sets, outside the test split; 0: the first", low=0, high=1000)
    audio_column: str | None = knob(None, "none: found by its name or type")
    channel: int | None = knob(
        None, "channel of the recordings, from 0, where microphones are channels; none: their average", low=0, high=63
    )
    text_column: str | None = knob(None, "none: found by its name")
    group_column: str | None = knob(None, "clips that share its value stay in one split; none: speaker, session")
    max_dropped: float = knob(0.05, "share of unusable clips that a run accepts", low=0.0, high=1.0)
    keep: str | None = knob(
        None, "clean or other speech to be scored beside, untouched and tuned: what is forgotten; never trained on"
    )
    extra: tuple[ExtraData, ...] = knob((), "other speech to train on beside it, a list", items=ExtraData)
    air_column: str | None = knob(
        None, "the column where a microphone in air recorded the same clips: what throat filters are learnt against"
    )
    air_channel: int | None = knob(None, "the channel of such a microphone, from 0", low=0, high=63)
    noise: str | None = knob(None, "folder of noise recordings, for train.noise_db")
    normalizer: str | None = knob(
        None,
        "what texts go through before they are compared; none: whisper, and marks where the language has them",
        choices=NORMALIZERS,
    )

    def __post_init__(self) -> None:
        # Studies and recipes of versions before 0.2.0 hold a language as it was written.
        object.__setattr__(self, "language", code_if_known(self.language))
        extra = tuple(item if isinstance(item, ExtraData) else ExtraData(**item) for item in self.extra)
        object.__setattr__(self, "extra", extra)  # files and messages hold mappings

    @property
    def text_language(self) -> str:
        """The language of the texts: translations are into English."""
        return "en" if self.task == "translate" else self.language
