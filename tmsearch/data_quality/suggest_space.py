"""A first space file for a dataset: budget, batch, models and knobs by its clips and the machine, with reasons."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from tmsearch.config import DataConfig
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.data_quality import suggest_models
from tmsearch.data_quality.suggest_models import CONTEXTS, ProposedSetting, TrialPlan, sentence
from tmsearch.errors import InputError
from tmsearch.model.context import context_needed
from tmsearch.model_sizes import recommended_learning_rate

WIDTH = 110  # columns of a comment in the file
# The seed of this project, github.com/pauljunsukhan/whisper_finetuning: 14 passes over 884 clips to 26 over 480.
PASSES = 20  # over the training clips
STEPS = (40, 2000)
SPREAD_DB = 6.0  # a factor of two in level between quiet and loud clips, which a model would have to learn
# In the seed's runs 124 validation clips left a standard error of .016 to .020 in WER.
ERROR_OF_124 = 0.018
MORE_KNOBS = (
    "schedule: [linear, cosine]",
    "weight_decay: {low: 0.0, high: 0.1, step: 0.02}",
    "label_smoothing: {low: 0.0, high: 0.15, step: 0.05}",
    "dropout: {low: 0.0, high: 0.1, step: 0.05}",
    "spec_time_masks: [0, 2]",
    "spec_freq_masks: [0, 2]",
    "speed: {low: 0.0, high: 0.1}",
    "bpe_dropout: [0.0, 0.1]",
    "window_share: {low: 0.0, high: 0.75, step: 0.25}",
    "clip_times: {low: 0.0, high: 0.5, step: 0.25}",
)


@dataclass(frozen=True)
class Proposal:
    """A space file in its sections."""

    study: str
    about: str
    sections: Mapping[str, tuple[ProposedSetting, ...]]
    start: tuple[Mapping[str, Any], ...]
    trial_seconds: float | None = None  # of the costliest model's, trained in full on the GPU; None: unknown

    def text(self) -> str:
        """The file. Every text from the user is a YAML scalar that reads back unchanged."""
        lines = [*_comment(self.about, ""), "", f"study: {_yaml(self.study)}"]
        for name, section in self.sections.items():
            lines.append(f"{name}:")
            for setting in section:
                lines += [*_comment(setting.why, "  "), f"  {setting.key}: {_yaml(setting.value)}"]
        lines.append("start:")
        lines += _comment("Tried first: what published recipes use; what an entry leaves out is sampled.", "  ")
        lines += [f"  - {_yaml(entry)}" for entry in self.start]
        lines += ["", "# More that recipes search, to be put under `search`:"]
        lines += [f"#   {knob}" for knob in MORE_KNOBS]
        return "\n".join(lines) + "\n"

    def assumptions(self) -> list[str]:
        """What was assumed, a line each."""
        settings = [setting for section in self.sections.values() for setting in section]
        return [setting.assumption for setting in settings if setting.assumption]


def parts(clips: int) -> tuple[float | int, str]:
    """Of this number of clips, the share or the count for validation, and as many for test; and why."""
    if clips > 2000:
        return 300, "300 clips put WER's standard error at .012; more would only cost time"
    if clips < 200:
        return 0.2, "a fifth each, since a seventh of few clips says next to nothing"
    return 0.15, "the seed's share"


def with_parts(config: DataConfig, given: Collection[str], clips: int) -> DataConfig:
    """`config` with the parts that fit so many clips, where validation and test are not among the `given` settings."""
    share, _ = parts(clips)
    return dataclasses.replace(
        config,
        validation=config.validation if "validation" in given else share,
        test=config.test if "test" in given else share,
    )


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
    """Proposes a space for the clips of `corpus`, opened as `config` and divided as `split`.

    `models` are those that the user asked for; without them two are chosen that fit `gpu_gb`, the memory in GB of the
    GPU that trains (0: none). `language_why` and `gpu_why` say how language and memory are known.
    """
    clips = len(split.train)
    steps, budget = _budget(clips)
    plan = TrialPlan(corpus, split, _batch(clips), steps, gpu_gb)
    names, names_why = (list(models), "as asked for") if models else suggest_models.models(config, plan, gpu_why)
    rate, centre = _rate(names)
    warmup = _warmup(steps)
    knobs = [_batch_setting(clips), _model(names, names_why), rate, warmup, _normalization(corpus)]
    if not any(name.startswith("demo/") for name in names):  # their context is 4 s: a trial takes what they have
        knobs.insert(1, _context(corpus))
    knobs += suggest_models.savings(names, plan)
    search = tuple(knob for knob in knobs if knob.is_searched)
    sections = {
        "data": tuple(_data(corpus, config, split, language_why)),
        "budget": budget,
        "train": tuple(knob for knob in knobs if not knob.is_searched),
        "search": search,
    }
    minutes = sum(clip.seconds for clip in corpus.clips) / 60
    about = (
        f"Written by `tmsearch init` after looking at {len(corpus.clips)} clips, {minutes:.1f} min. Each value "
        "says where it comes from: change what you know better."
    )
    return Proposal(study, about, sections, (_start(search, names[-1], centre, warmup),), plan.longest(names))


def _start(
    search: Sequence[ProposedSetting], model: str, learning_rate: float | None, warmup: ProposedSetting
) -> dict[str, Any]:
    """What published recipes use of the searched knobs."""
    recipe = {
        "model": model,
        "learning_rate": learning_rate,
        "warmup_steps": warmup.value["high"] // warmup.value["step"] // 2 * warmup.value["step"],
        "normalize_audio": False,
    }
    searched = {knob.key for knob in search}
    return {key: value for key, value in recipe.items() if key in searched and value is not None}


def _data(corpus: Corpus, config: DataConfig, split: Split, language_why: str) -> list[ProposedSetting]:
    """The dataset, and whatever of its settings is not the default."""
    settings = [
        ProposedSetting("dataset", config.dataset, "As a path it is taken from the folder that the command runs in.")
    ]
    revision = config.revision or corpus.commit
    if revision:
        why = "Pinned: a dataset that grows is another one, with another split."
        settings.append(ProposedSetting("revision", revision, why))
    settings.append(
        ProposedSetting(
            "language", config.language, sentence(language_why), f"language {config.language}: {language_why}"
        )
    )
    settings.append(_validation(corpus, config, split))
    settings.append(ProposedSetting("test", config.test, "Locked: only `tmsearch train` and `confirm --test` read it."))
    listed = {setting.key for setting in settings}
    default = dataclasses.asdict(DataConfig(dataset=config.dataset))
    for name, value in dataclasses.asdict(config).items():
        if name not in listed and value != default[name]:
            settings.append(ProposedSetting(name, value, "As given to `tmsearch init`."))
    return settings


def _validation(corpus: Corpus, config: DataConfig, split: Split) -> ProposedSetting:
    error = ERROR_OF_124 * math.sqrt(124 / max(1, len(split.validation)))
    precision = f"{len(split.validation)} clips to validate leave WER a standard error of about {error:.3f}"
    share, share_why = parts(len(corpus.clips))
    reason = f", {share_why}" if config.validation == share else ""
    groups = f"no {' nor '.join(split.grouped_by)} is in two splits"
    return ProposedSetting(
        "validation",
        config.validation,
        f"Of {len(corpus.clips)} clips{reason}; {groups}. {precision}.",
        f"validation {config.validation:g}: {precision}",
    )


def _context(corpus: Corpus) -> ProposedSetting:
    longest = max(clip.seconds for clip in corpus.clips)
    context = min(CONTEXTS[1], max(CONTEXTS[0], context_needed(longest)))
    measured = f"The longest clip has {longest:.1f} s"
    return ProposedSetting(
        "context_seconds",
        context,
        f"{measured}; Whisper would pad every clip to 30 s.",
        f"context {context:g} s: {measured}",
    )


def _batch_setting(clips: int) -> ProposedSetting:
    return ProposedSetting("batch_size", _batch(clips), f"Recipes for Whisper use 8 to 32; {clips} clips to train.")


def _batch(clips: int) -> int:
    """For this number of training clips: 16 as in the seed, fewer where that would be few steps a pass."""
    if clips >= 3200:
        return 32
    if clips >= 96:
        return 16
    if clips >= 32:
        return 8
    return max(1, min(4, clips))


def _budget(clips: int) -> tuple[int, tuple[ProposedSetting, ...]]:
    """Steps for this number of training clips, and the budget section."""
    batch = _batch(clips)
    wanted = min(STEPS[1], max(STEPS[0], PASSES * clips / batch))
    unit = 40 if wanted >= 120 else 8
    steps = unit * round(wanted / unit)
    halvings = (3, 2, 1, 0) if steps >= 160 else (2, 1, 0)
    passes = steps * batch / clips
    max_steps = ProposedSetting(
        "max_steps",
        steps,
        f"{passes:.0f} passes over {clips} training clips in batches of {batch}; the seed's best runs made 14 to 26.",
        f"{steps} steps of {batch} clips: {passes:.0f} passes over the training clips",
    )
    rungs = ProposedSetting(
        "rungs",
        [steps // 2**halving for halving in halvings],
        "Judged after each doubling: cheap where little is known yet.",
    )
    return steps, (max_steps, rungs)


def _model(names: Sequence[str], why: str) -> ProposedSetting:
    value = list(names) if len(names) > 1 else names[0]
    return ProposedSetting("model", value, sentence(why), f"{', '.join(names)}: {why}")


def _rate(models: Sequence[str]) -> tuple[ProposedSetting, float | None]:
    """The range of the learning rate, and its centre for the last model; None where no recipe is known."""
    try:
        centres = [recommended_learning_rate({"model": model}) for model in models]
    except InputError:
        setting = ProposedSetting(
            "learning_rate",
            {"low": 1e-6, "high": 1e-3, "log": True},
            "No recipe is known for a model of this size: from well below large-v3's 5e-6 to above any Whisper's.",
            "learning_rate 1e-6 to 1e-3: no recipe known for the model",
        )
        return setting, None
    basis = "measured on the demo" if models[0].startswith("demo/") else "1/40 of the pre-training rate"
    source = f"{basis}; 0.3 to 6 times that is searched."
    if len(models) > 1:
        value = {"low": 0.3, "high": 6, "log": True, "times": "recommended"}
        listing = ", ".join(f"{centre:.3g}" for centre in centres)
        why = f"A factor on each model's own centre ({listing}): {source}"
    else:
        low, high = (float(f"{factor * centres[0]:.3g}") for factor in (0.3, 6))
        value = {"low": low, "high": high, "log": True}
        why = f"The centre for this model is {centres[0]:.3g}, {source}"
    return ProposedSetting("learning_rate", value, why), centres[-1]


def _warmup(steps: int) -> ProposedSetting:
    highest = max(1, math.floor(0.15 * steps))
    step = max(1, round(highest / 12))
    why = f"Recipes for Whisper warm up for 2 to 15 % of the {steps} steps."
    return ProposedSetting("warmup_steps", {"low": 0, "high": highest // step * step, "step": step}, why)


def _normalization(corpus: Corpus) -> ProposedSetting:
    """Whether normalization is worth searching: only where levels differ."""
    rms = [20 * math.log10(max(clip.recording.rms, 1e-6)) for clip in corpus.clips]
    low, high = (float(level) for level in np.percentile(rms, [5, 95]))
    measured = f"90 % of the clips lie within {high - low:.0f} dB of RMS level ({low:.0f} to {high:.0f} dBFS)"
    if high - low >= SPREAD_DB:
        assumption = f"normalize_audio searched: {measured}"
        return ProposedSetting("normalize_audio", [True, False], f"{measured}. True: peak.", assumption)
    why = f"Not searched: {measured}, too little for normalization to matter."
    return ProposedSetting("normalize_audio", False, why, f"normalize_audio false: {measured}")


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


class _Dumper(yaml.SafeDumper):
    """Quotes every text that might be read as anything else: our reader takes 1e-5 for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        plain = re.fullmatch(r"(\.{0,2}/)?[A-Za-z][\w./-]*", text, re.ASCII) and yaml.safe_load(text) == text
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def _yaml(value: Any) -> str:
    """A value on one line that reads back unchanged."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip("\n")
