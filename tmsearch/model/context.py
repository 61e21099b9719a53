"""How much audio the encoder hears of each clip: the clip and a margin, not the 30 s that Whisper pads it to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.model import forward
from tmsearch.model.heard import MARGIN, context_needed
from tmsearch.model.whisper import FRAMES_PER_POSITION, POSITIONS_PER_SECOND, Whisper


@dataclass(frozen=True)
class ContextRule:
    """A study's rule, in encoder positions of 20 ms: no clip is heard longer than `most`, each in whole `step`s.

    A `step` of 0 hears every clip for `most`. `silence`: what lies behind, up to `full`, is heard thinned.
    """

    max_positions: int
    step_positions: int
    full_positions: int
    silence: bool

    @property
    def seconds(self) -> float:
        """The longest context."""
        return self.max_positions / POSITIONS_PER_SECOND

    def positions(self, seconds: float) -> int:
        """What is heard of a clip of `seconds`."""
        if not self.step_positions:
            return self.max_positions
        whole = math.ceil((seconds + MARGIN) * POSITIONS_PER_SECOND / self.step_positions) * self.step_positions
        return min(self.max_positions, whole)

    def length_groups(self, seconds: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
        """Clips heard equally long: mel frames, and the places in `seconds` of those clips; shorter ones first."""
        own = [self.positions(one) for one in seconds]
        for count in sorted(set(own)):
            yield FRAMES_PER_POSITION * count, [place for place, one in enumerate(own) if one == count]

    def mean_seconds(self, seconds: Sequence[float]) -> float:
        """What the encoder works through for a clip on average, thinned silence included."""
        own = [self.positions(one) for one in seconds]
        rest = [len(forward.thinned(self.full_positions - one)) if self.silence else 0 for one in own]
        return (sum(own) + sum(rest)) / len(own) / POSITIONS_PER_SECOND


def context_rule(config: TrainConfig, full_seconds: float, longest: float) -> ContextRule:
    """The rule of `config` for a checkpoint that hears `full_seconds` and a corpus whose longest clip has `longest`."""
    seconds = max_context_seconds(config, full_seconds, longest)
    most, step, full_context = (
        round(one * POSITIONS_PER_SECOND) for one in (seconds, config.context_step, full_seconds)
    )
    return ContextRule(most, step, full_context, config.context_silence)


def full_context(whisper: Whisper) -> ContextRule:
    """Every clip padded to all that the checkpoint hears, as its users do."""
    return ContextRule(whisper.positions, 0, whisper.positions, False)


def max_context_seconds(config: TrainConfig, full_seconds: float, longest: float) -> float:
    """The longest context: as configured, else as the longest clip needs, and what the checkpoint hears at most.

    Raises InputError where more is configured than that.
    """
    said = config.context_seconds
    if said is not None and said > full_seconds:
        raise InputError(f"context_seconds: {said:g}: {config.model} hears {full_seconds:g} s at most")
    return said or min(context_needed(longest), full_seconds)
