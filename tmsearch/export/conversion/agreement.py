"""A converted folder heard in its runtime beside our own decoding of the model, on the same clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch import devices
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data import corpus, splits
from tmsearch.data.splits import Split
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate
from tmsearch.export.conversion import transcripts
from tmsearch.export.conversion.targets import TARGETS
from tmsearch.features import log_mel
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model
from tmsearch.model.tokens import prompt_ids, special_id
from tmsearch.model.whisper import Whisper

MOST_CLIPS = 40  # that are heard: enough to tell a broken folder from a whole one
AGREED = 0.01  # WER that a converted folder may differ by


@dataclass(frozen=True)
class Agreement:
    """A converted folder in its runtime beside our own decoding of the model, on the same clips."""

    runtime: str  # with its version
    clips: int
    wer: float
    own_wer: float
    same: int  # clips with the same transcript, to the letter

    @property
    def holds(self) -> bool:
        """Whether the two WERs are as close as AGREED."""
        return abs(self.wer - self.own_wer) <= AGREED

    def sentence(self) -> str:
        """The figures for a terminal."""
        figures = (
            f"{self.clips} clips: WER {self.wer:.3f} in {self.runtime}, {self.own_wer:.3f} by our own decoding; "
            f"{self.same} transcripts are the same"
        )
        return figures if self.holds else f"differs by more than {AGREED:g}: {figures}"


def validation_clips(data: DataConfig, cache: Path) -> Speech:
    """The speech that a model was trained on, split as then; raises InputError where it can't be read."""
    loaded = corpus.load(data)
    return Speech(loaded, splits.split(loaded, data), data.language, data.task, cache, data.normalizer)


def all_clips(data: DataConfig, cache: Path) -> Speech:
    """Any speech, all of it as the validation split; raises InputError where it can't be read."""
    loaded = corpus.load(data)
    names = tuple(clip.name for clip in loaded.clips)
    return Speech(loaded, Split((), names, ()), data.language, data.task, cache, data.normalizer)


def _fitting_clips(speech: Speech, whisper: Whisper, most: int) -> list[str]:
    """The first validation clips that the model takes whole."""
    clips = speech.clips(speech.split.validation)
    return [clip.name for clip in clips if clip.seconds <= whisper.seconds][:most]


def measure(
    folder: Path,
    name: str,
    output: Path,
    speech: Speech,
    *,
    most: int = MOST_CLIPS,
    normalization: str = "none",
    say: Callable[[str], None] = lambda line: None,
) -> Agreement:
    """Hears clips with the converted folder in its runtime, and with the model by our own decoding, greedily both.

    Args:
        folder: The model folder.
        name: Key of TARGETS.
        output: What `convert` wrote.
        speech: Its validation clips are heard, the first `most` that are no longer than the model's window.
        most: How many clips at most.
        normalization: What the clips are brought to, for both: one of config.NORMALIZATIONS.
        say: Told what takes a while.

    Raises:
        InputError: There is no such clip.
        RuntimeFailedError: The runtime did not hear them.
    """
    config = TrainConfig(model=str(folder), normalize_audio=normalization, precision="float32")
    whisper = model.load(config)
    heard = _fitting_clips(speech, whisper, most)
    if not heard:
        raise InputError(f"no clip is as short as the {whisper.seconds:g} s that the model hears at a time")
    say(f"hearing {len(heard)} clips in {TARGETS[name].runtime} and by our own decoding")
    texts = transcripts.hear(
        _job(whisper, name, output, speech, heard),
        [log_mel.normalize(speech.corpus.decode(clip), normalization) for clip in heard],
    )
    devices.move(whisper.model, devices.device())
    own, _ = evaluate.evaluate(whisper, speech, heard, config, context="full")
    references = [clip.text for clip in speech.clips(heard)]
    language = "en" if speech.task == "translate" else speech.language
    scores = evaluate.score(heard, references, texts, language, speech.normalizer)
    same = sum(text == clip.hypothesis for text, clip in zip(texts, own.clips, strict=True))
    return Agreement(transcripts.version(name), len(heard), scores.wer, own.wer, same)


def _job(whisper: Whisper, name: str, output: Path, speech: Speech, names: Sequence[str]) -> transcripts.Job:
    """What our own decoding does, for a runtime."""
    settings = whisper.model.generation_config
    vocabulary = int(whisper.model.config.vocab_size)
    suppressed = [index for index in settings.suppress_tokens or [] if 0 <= index < vocabulary]
    first = [index for index in settings.begin_suppress_tokens or [] if 0 <= index < vocabulary]
    return transcripts.Job(
        target=name,
        folder=str(output.absolute()),
        language=speech.language,
        task=speech.task,
        prompt=prompt_ids(whisper, speech.language, speech.task),
        end=special_id(whisper, "<|endoftext|>"),
        suppressed=suppressed,
        suppressed_first=first,
        most_tokens=evaluate.token_limit(whisper, speech, names),
    )
