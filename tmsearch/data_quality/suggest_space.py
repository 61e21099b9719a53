"""A first space file for a dataset: what its clips and the machine say of budget, batch, models and knobs, and why."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from tmsearch.config import DataConfig
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.errors import InputError
from tmsearch.model.context import context_needed
from tmsearch.model_sizes import BASIC_SIZES, recommended_learning_rate

WIDTH = 110  # columns of a comment in the file
PASSES = 20  # over the training clips; the seed's runs made 14 (884 clips) to 26 (480 clips), DESIGN.md, section 4
STEPS = (40, 2000)
CONTEXTS = (1.0, 30.0)  # seconds: what the knob takes, and what every released Whisper hears at most
# A full fine-tune holds weights, gradients and AdamW's two moments in float32.
STATE_BYTES, BESIDE_GB = 16, 2.0
# openai/whisper's README: English-only models tend to do better, above all these two.
BETTER_IN_ENGLISH = ("tiny", "base")
SPREAD_DB = 6.0  # a factor of two in level between quiet and loud clips is one that a model has to learn
# 124 validation clips leave a standard error of .016 to .020 in WER (DESIGN.md, section 6).
ERROR_OF_124 = 0.018


@dataclass(frozen=True)
class ProposedSetting:
    """One key of the file, its value, and from what that was derived; `short` is what a person is told of it."""

    key: str
    value: Any
    why: str = ""
    short: str = ""


@dataclass(frozen=True)
class Proposal:
    """A space file in its sections."""

    study: str
    about: str
    sections: Mapping[str, tuple[ProposedSetting, ...]]
    start: tuple[Mapping[str, Any], ...]

    def text(self) -> str:
        """The file. Every text of a person's is a YAML scalar that reads back as it was."""
        lines = [*_comment(self.about, ""), "", f"study: {_yaml(self.study)}"]
        for name, section in self.sections.items():
            lines.append(f"{name}:")
            for line in section:
                lines += [*_comment(line.why, "  "), f"  {line.key}: {_yaml(line.value)}"]
        lines.append("start:")
        lines += _comment("Tried first: what published recipes use; what an entry leaves out is sampled.", "  ")
        lines += [f"  - {_yaml(entry)}" for entry in self.start]
        lines += ["", "# More that recipes search, to be put under `search`:"]
        lines += [f"#   {knob}" for knob in MORE]
        return "\n".join(lines) + "\n"

    def assumptions(self) -> list[str]:
        """What was assumed, a line each."""
        return [line.short for section in self.sections.values() for line in section if line.short]


MORE = (
    "schedule: [linear, cosine]",
    "weight_decay: {low: 0.0, high: 0.1, step: 0.02}",
    "label_smoothing: {low: 0.0, high: 0.15, step: 0.05}",
    "dropout: {low: 0.0, high: 0.1, step: 0.05}",
    "spec_time_masks: [0, 2]",
    "spec_freq_masks: [0, 2]",
    "speed: {low: 0.0, high: 0.1}",
)


def parts(clips: int) -> tuple[float | int, str]:
    """Validation's and the test split's share of so many clips, or their count, and why."""
    if clips > 2000:
        return 300, "300 clips put WER's standard error at .012; more would only cost time"
    if clips < 200:
        return 0.2, "a fifth each, since a seventh of few clips says next to nothing"
    return 0.15, "the seed's share"


def propose(
    corpus: Corpus,
    config: DataConfig,
    split: Split,
    *,
    study: str,
    language_why: str,
    models: Sequence[str] = (),
    gpu_gb: float = 0.0,
    gpu_why: str = "",
) -> Proposal:
    """A space for the clips of `corpus`, divided as `split`. `gpu_gb`: memory of the GPU that trains, 0: none."""
    names, why = (list(models), "as asked for") if models else _models(config, gpu_gb, gpu_why)
    steps, budget = _budget(len(split.train))
    batch = _batch(len(split.train))
    train = [
        ProposedSetting("batch_size", batch, f"Recipes for Whisper use 8 to 32; {len(split.train)} clips to train.")
    ]
    if config.dataset != "demo":  # whose models hear less
        train.append(_context(corpus))
    search: list[ProposedSetting] = []
    one = len(names) == 1
    model = ProposedSetting(
        "model", names[0] if one else names, f"{why[0].upper()}{why[1:]}.", f"{', '.join(names)}: {why}"
    )
    (train if one else search).append(model)
    rate, centre = _rate(names)
    search += [rate, _warmup(steps)]
    level = _level(corpus)
    (search if level.value == [True, False] else train).append(level)
    searched = {line.key for line in search}
    first = {"model": names[-1], "learning_rate": centre, "warmup_steps": _middle(_warmup(steps).value)}
    first["normalize_audio"] = False
    start = {key: value for key, value in first.items() if key in searched and value is not None}
    seconds = sum(clip.seconds for clip in corpus.clips)
    about = (
        f"Written by `tmsearch init` after looking at {len(corpus.clips)} clips, {seconds / 60:.1f} min. Each value "
        "says where it comes from: change what you know better."
    )
    sections = {
        "data": tuple(_data(corpus, config, split, language_why)), "budget": budget, "train": tuple(train),
        "search": tuple(search),
    }  # fmt: skip
    return Proposal(study, about, sections, (start,))


def _data(corpus: Corpus, config: DataConfig, split: Split, language_why: str) -> list[ProposedSetting]:
    """The dataset, and whatever of its settings is not the default."""
    lines = [
        ProposedSetting("dataset", config.dataset, "As a path it is taken from the folder that the command runs in.")
    ]
    revision = config.revision or corpus.commit
    if revision:
        lines.append(
            ProposedSetting("revision", revision, "Pinned: a dataset that grows is another one, with another split.")
        )
    told = f"language {config.language}: {language_why}"
    lines.append(ProposedSetting("language", config.language, f"{language_why[0].upper()}{language_why[1:]}.", told))
    error = ERROR_OF_124 * math.sqrt(124 / max(1, len(split.validation)))
    share, why = parts(len(corpus.clips))
    reason = f", {why}" if config.validation == share else ""
    kept = f"Of {len(corpus.clips)} clips{reason}; no {' nor '.join(split.grouped_by)} is in two splits."
    sure = f"{len(split.validation)} clips to validate leave WER a standard error of about {error:.3f}"
    lines.append(
        ProposedSetting("validation", config.validation, f"{kept} {sure}.", f"validation {config.validation:g}: {sure}")
    )
    lines.append(ProposedSetting("test", config.test, "Locked: only `tmsearch train` and `confirm --test` read it."))
    default = DataConfig(dataset=config.dataset)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name not in [line.key for line in lines] and value != getattr(default, item.name):
            lines.append(ProposedSetting(item.name, value, "As given to `tmsearch init`."))
    return lines


def _context(corpus: Corpus) -> ProposedSetting:
    longest = max(clip.seconds for clip in corpus.clips)
    context = min(CONTEXTS[1], max(CONTEXTS[0], context_needed(longest)))
    said = f"The longest clip has {longest:.1f} s"
    return ProposedSetting(
        "context_seconds", context, f"{said}; Whisper would pad every clip to 30 s.", f"context {context:g} s: {said}"
    )


def _batch(clips: int) -> int:
    """Of so many training clips: 16 as the seed, less where that would be few steps a pass."""
    return 32 if clips >= 3200 else 16 if clips >= 96 else 8 if clips >= 32 else max(1, min(4, clips))


def _budget(clips: int) -> tuple[int, tuple[ProposedSetting, ...]]:
    batch = _batch(clips)
    wanted = min(STEPS[1], max(STEPS[0], PASSES * clips / batch))
    unit = 40 if wanted >= 120 else 8
    steps = unit * round(wanted / unit)
    rungs = [steps // 2**power for power in ((3, 2, 1, 0) if steps >= 160 else (2, 1, 0))]
    passes = steps * batch / clips
    why = f"{passes:.0f} passes over {clips} training clips in batches of {batch}; the seed's best runs made 14 to 26."
    short = f"{steps} steps of {batch} clips: {passes:.0f} passes over the training clips"
    budget = ProposedSetting("max_steps", steps, why, short)
    return steps, (
        budget,
        ProposedSetting("rungs", rungs, "Judged after each doubling: cheap where little is known yet."),
    )


def _models(config: DataConfig, gpu_gb: float, gpu_why: str) -> tuple[list[str], str]:
    """Two sizes for the search to choose from, and why these."""
    if config.dataset == "demo":
        return ["demo/nano", "demo/micro"], "embedded, so that the demo needs no network"
    if not gpu_gb:
        return [_named(one, config) for one in ("tiny", "base")], f"{gpu_why}; larger ones take hours on a CPU"
    need = {size.name: STATE_BYTES * size.millions / 1e3 + BESIDE_GB for size in BASIC_SIZES}
    fitting = [name for name, gigabytes in need.items() if gigabytes <= 0.9 * gpu_gb] or ["tiny"]
    largest = fitting[-1]
    chosen = ["small", largest] if largest in ("medium", "large-v3") else fitting[-2:]
    why = f"{gpu_why}; full training of {largest} takes about {need[largest]:.0f} GB"
    return [_named(one, config) for one in chosen], why


def _named(size: str, config: DataConfig) -> str:
    return f"openai/whisper-{size}{'.en' if config.language == 'en' and size in BETTER_IN_ENGLISH else ''}"


def _rate(models: Sequence[str]) -> tuple[ProposedSetting, float | None]:
    """The range of the learning rate, and its centre for the last model; None where no recipe is known."""
    try:
        centres = [recommended_learning_rate({"model": model}) for model in models]
    except InputError:
        wide = {"low": 1e-6, "high": 1e-3, "log": True}
        said = "No recipe is known for a model of this size: from well below large-v3's 5e-6 to above any Whisper's."
        return ProposedSetting(
            "learning_rate", wide, said, "learning_rate 1e-6 to 1e-3: no recipe known for the model"
        ), None
    found = "measured on the demo" if models[0].startswith("demo/") else "1/40 of the pre-training rate"
    source = f"{found}; 0.3 to 6 times that is searched."
    if len(models) > 1:
        each = ", ".join(f"{centre:.3g}" for centre in centres)
        return ProposedSetting(
            "learning_rate", {"low": 0.3, "high": 6, "log": True, "times": "recommended"},
            f"A factor on each model's own centre ({each}): {source}",
        ), centres[-1]  # fmt: skip
    low, high = (float(f"{factor * centres[0]:.3g}") for factor in (0.3, 6))
    said = f"The centre for this model is {centres[0]:.3g}, {source}"
    return ProposedSetting("learning_rate", {"low": low, "high": high, "log": True}, said), centres[0]


def _warmup(steps: int) -> ProposedSetting:
    most = max(1, math.floor(0.15 * steps))
    step = max(1, round(most / 12))
    why = f"Recipes for Whisper warm up for 2 to 15 % of the {steps} steps."
    return ProposedSetting("warmup_steps", {"low": 0, "high": most // step * step, "step": step}, why)


def _middle(warmup: Mapping[str, int]) -> int:
    return warmup["high"] // warmup["step"] // 2 * warmup["step"]


def _level(corpus: Corpus) -> ProposedSetting:
    """Whether normalisation is worth searching: only where levels differ."""
    rms = [20 * math.log10(max(clip.recording.rms, 1e-6)) for clip in corpus.clips]
    low, high = (float(value) for value in np.percentile(rms, [5, 95]))
    measured = f"90 % of the clips lie within {high - low:.0f} dB of RMS level ({low:.0f} to {high:.0f} dBFS)"
    if high - low >= SPREAD_DB:
        told = f"normalize_audio searched: {measured}"
        return ProposedSetting("normalize_audio", [True, False], f"{measured}. True: peak.", told)
    said = f"Not searched: {measured}, too little for normalisation to matter."
    return ProposedSetting("normalize_audio", False, said, f"normalize_audio false: {measured}")


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


class _Dumper(yaml.SafeDumper):
    """Quotes every text that anybody might read as something else: our reader takes 1e-5 for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        plain = re.fullmatch(r"(\.{0,2}/)?[A-Za-z][\w./-]*", text, re.ASCII) and yaml.safe_load(text) == text
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def _yaml(value: Any) -> str:
    """A value on one line that reads back as it is."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip("\n")
