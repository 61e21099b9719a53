"""Which microphones a dataset holds, as columns or channels, and which of them sounds like a throat microphone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.config import DataConfig
from tmsearch.data import audio_file
from tmsearch.data.audio_file import Samples, UnusableAudioError
from tmsearch.data.columns import AmbiguousColumnsError, Row
from tmsearch.data.sources import Source, open_source

MOST_CLIPS = 20  # of each microphone that are heard; evenly over the dataset
SPLIT_HZ = 2000.0  # skin and muscle pass little above it
# Of 60 clips of a simulated throat microphone (70 to 700 Hz) 95 % have less than .0003 of their energy above SPLIT_HZ,
# of the demo's (70 to 1,400 Hz) less than .004; two voices of espeak-ng, as they are, .05 and .06.
THROAT_SHARE = 0.005
_CLEARLY_LESS = 1 / 3  # of the next microphone's share
_TEXT_WIDTH = 60  # characters shown of a text


@dataclass(frozen=True)
class Microphone:
    """One column, or one channel of it, heard in a few clips."""

    column: str
    channel: int | None  # None: the recordings have one
    clips: int
    above_2khz: float  # share of the energy, of the median clip
    is_throat: bool = False  # whether it sounds like a throat microphone

    @property
    def name(self) -> str:
        column = self.column or "audio"
        return column if self.channel is None else f"{column}, channel {self.channel}"

    @property
    def sound(self) -> tuple[str, ...]:
        """Its sound, in words: what was measured, and below that what it sounds like, if anything can be said."""
        measured = f"{100 * self.above_2khz:.2g} % of the energy above {SPLIT_HZ / 1000:g} kHz"
        return (measured, "sounds like a throat microphone") if self.is_throat else (measured,)

    @property
    def line(self) -> str:
        """Its sound, in one line."""
        return ": ".join(self.sound)


@dataclass(frozen=True)
class Survey:
    """What a dataset offers: its microphones, and its columns of text with the first text of each."""

    microphones: tuple[Microphone, ...]
    texts: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """A line for each, columns aligned."""
        entries = [(microphone.name, microphone.line) for microphone in self.microphones]
        entries += [(column, f'"{_shortened(text)}"') for column, text in self.texts]
        width = max((len(name) for name, _ in entries), default=0)
        return [f"{name:<{width}}  {line}" for name, line in entries]


def survey(config: DataConfig) -> Survey:
    """Listens to a few clips of every microphone; columns need not be chosen yet.

    Raises:
        InputError: The dataset cannot be read, or no column of audio or text is known.
    """
    config = dataclasses.replace(config, channel=None)
    audio_columns, text_columns = _choices(config)
    texts = []
    microphones: list[Microphone] = []
    for audio_column in audio_columns:
        source = open_source(dataclasses.replace(config, audio_column=audio_column, text_column=text_columns[0]))
        microphones += _heard(audio_column or _only(source), source.rows)
    if len(text_columns) > 1:
        for text_column in text_columns:
            rows = open_source(dataclasses.replace(config, audio_column=audio_columns[0], text_column=text_column)).rows
            texts.append((str(text_column), next((row.text for row in rows if row.text), "")))
    return Survey(tuple(_judged(microphones)), tuple(texts))


def share_above(samples: Samples, rate: int, hertz: float = SPLIT_HZ) -> float:
    """Share of the energy of `samples` [positions], without their mean, above `hertz`; 0 for silence."""
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    power = np.square(np.abs(np.fft.rfft(centred)))  # [bins]
    total = float(power.sum())
    if total <= 0:
        return 0.0
    return float(power[np.fft.rfftfreq(len(centred), 1 / rate) > hertz].sum()) / total


def _choices(config: DataConfig) -> tuple[Sequence[str | None], Sequence[str | None]]:
    """All columns of audio, and those of text that have to be chosen from; a None leaves the choice as it is."""
    audio: Sequence[str | None] = (config.audio_column,)
    text: Sequence[str | None] = (config.text_column,)
    while True:
        try:
            source = open_source(dataclasses.replace(config, audio_column=audio[0], text_column=text[0]))
        except AmbiguousColumnsError as error:
            if error.key == "audio_column":
                audio = error.choices
            else:
                text = error.choices
            continue
        return source.audio_columns or audio, text


def _only(source: Source) -> str:
    return source.audio_columns[0] if source.audio_columns else ""


def _heard(column: str, rows: Sequence[Row]) -> Iterator[Microphone]:
    """The microphones of one column: one, or one a channel."""
    usable = [row for row in rows if not row.problem]
    shares: dict[int, list[float]] = {}
    for row in usable[:: max(1, len(usable) // MOST_CLIPS)][:MOST_CLIPS]:
        try:
            samples, rate = audio_file.decode(row.read())  # [positions, channels]
        except (OSError, UnusableAudioError):
            continue
        for channel in range(samples.shape[1]):
            shares.setdefault(channel, []).append(share_above(samples[:, channel], rate))
    for channel, channel_shares in shares.items():
        share = float(np.median(channel_shares))
        yield Microphone(column, channel if len(shares) > 1 else None, len(channel_shares), share)


def _judged(microphones: Sequence[Microphone]) -> list[Microphone]:
    """With those marked that sound like a throat microphone: by themselves, or by far more than the others."""
    shares = sorted(microphone.above_2khz for microphone in microphones)
    judged = []
    for microphone in microphones:
        share = microphone.above_2khz
        is_least_by_far = len(shares) > 1 and share == shares[0] < _CLEARLY_LESS * shares[1]
        judged.append(dataclasses.replace(microphone, is_throat=share < THROAT_SHARE or is_least_by_far))
    return judged


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_WIDTH else text[: _TEXT_WIDTH - 3] + "..."
