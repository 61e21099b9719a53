"""How much audio the encoder gets of each clip: the clip and a margin, not the 30 s that Whisper pads it to.

Free of torch, so that the command line can ask for it. Lengths are in encoder positions of 20 ms.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError

POSITIONS_PER_SECOND = 50  # of the encoder: 10 ms mel frames, halved by its second convolution
FRAMES_PER_POSITION = 2
# Silence kept behind a clip, so that its last word is never at the edge of what the encoder gets; seconds.
MARGIN_SECONDS = 0.2
# A study's longest context is rounded up to this, so that a clip more or less seldom changes it; seconds.
ROUND_TO_SECONDS = 0.5
THINNING = 0.5
# Pieces that the quiet in front of a clip's speech and all that is behind it are thinned to, whatever their length, so
# that clips with equally much speech have equally many positions: as many as `thinned` makes of 10 and of 30 s.
LEAD_PIECES = 20
TAIL_PIECES = 24


def dealt(positions: Sequence[int], size: int) -> list[list[int]]:
    """Clips of these positions in parts of at most `size` that have about as many positions each, long with short ones.

    Returns indices into `positions`, in order within a part.
    """
    parts: list[list[int]] = [[] for _ in range(math.ceil(len(positions) / size))]
    sums = [0] * len(parts)
    for index in sorted(range(len(positions)), key=lambda index: -positions[index]):
        shortest = min((part for part in range(len(parts)) if len(parts[part]) < size), key=lambda part: sums[part])
        parts[shortest].append(index)
        sums[shortest] += positions[index]
    return [sorted(part) for part in parts]


@dataclass(frozen=True)
class ContextRule:
    """A study's rule, in encoder positions: a clip gets its own length in whole `step_positions`, up to the maximum.

    With `step_positions` of 0 every clip gets `max_positions`. With `silence`, what lies between a clip's own
    positions and `full_positions` is represented by a few thinned positions.
    """

    max_positions: int
    step_positions: int
    full_positions: int
    silence: bool
    quiet: bool = False  # whether the quiet before and behind a clip's speech is thinned, too

    @property
    def seconds(self) -> float:
        """The longest context."""
        return self.max_positions / POSITIONS_PER_SECOND

    def positions(self, seconds: float) -> int:
        """The positions for a clip of `seconds`."""
        if not self.step_positions:
            return self.max_positions
        steps = math.ceil((seconds + MARGIN_SECONDS) * POSITIONS_PER_SECOND / self.step_positions)
        return min(self.max_positions, steps * self.step_positions)

    def places(self, own: int, lead: int, end: int) -> Places:
        """Which positions of a clip are encoded where the quiet around its speech is thinned.

        Args:
            own: The clip's positions, as `positions` says.
            lead: Those of them that are quiet in front of the speech.
            end: Where the quiet behind the speech starts.
        """
        lead = lead if lead > LEAD_PIECES else 0
        end = min(end, own)
        # The speech in whole steps, so that clips share lengths: it grows into the quiet behind, then in front.
        step = self.step_positions or own
        dense = min(own, math.ceil((end - lead) / step) * step)
        end = min(own, lead + dense)
        lead = end - dense
        if lead <= LEAD_PIECES:
            lead = 0
            end = min(own, math.ceil(end / step) * step)
        return _places(lead, end, self.full_positions)

    def length_groups(self, seconds: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
        """Groups the clips of these lengths by context: (mel frames, indices into `seconds`), shortest first."""
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(seconds):
            groups.setdefault(self.positions(length), []).append(index)
        for positions in sorted(groups):
            yield FRAMES_PER_POSITION * positions, groups[positions]

    def mean_seconds(self, seconds: Sequence[float]) -> float:
        """The encoder's mean work for a clip, thinned silence included, as seconds of audio."""
        positions = 0
        for length in seconds:
            own = self.positions(length)
            positions += own
            if self.silence:
                positions += len(thinned(self.full_positions - own))
        return positions / len(seconds) / POSITIONS_PER_SECOND


def context_rule(config: TrainConfig, full_seconds: float, longest: float) -> ContextRule:
    """The rule of `config` for one checkpoint and one corpus.

    Args:
        config: What the knobs `context_seconds`, `context_step` and `context_silence` say.
        full_seconds: Audio that the checkpoint's encoder takes at most.
        longest: Length of the corpus's longest clip, seconds.

    Raises:
        InputError: More is configured than the checkpoint takes, or what `context_quiet` needs is switched off.
    """
    if config.context_quiet and not (config.context_silence and config.context_step):
        raise InputError("context_quiet: true: needs context_silence and a context_step; leave both at their defaults")
    return ContextRule(
        max_positions=round(max_context_seconds(config, full_seconds, longest) * POSITIONS_PER_SECOND),
        step_positions=round(config.context_step * POSITIONS_PER_SECOND),
        full_positions=round(full_seconds * POSITIONS_PER_SECOND),
        silence=config.context_silence,
        quiet=config.context_quiet,
    )


def for_windows(rule: ContextRule, seconds: float) -> ContextRule:
    """The rule for windows of up to `seconds`, where that of single clips is `rule`."""
    longest = round(context_needed(seconds) * POSITIONS_PER_SECOND)
    most = min(max(rule.max_positions, longest), rule.full_positions)
    return dataclasses.replace(rule, max_positions=most)


def full_context(positions: int) -> ContextRule:
    """Pads every clip to the checkpoint's `positions`, as its users do."""
    return ContextRule(max_positions=positions, step_positions=0, full_positions=positions, silence=False)


def max_context_seconds(config: TrainConfig, full_seconds: float, longest: float) -> float:
    """The longest context: as configured, else what the longest clip needs, at most what the checkpoint takes.

    Raises InputError where more is configured than that.
    """
    configured = config.context_seconds
    if configured is not None and configured > full_seconds:
        raise InputError(
            f"train.context_seconds: {configured:g}: {config.model} takes {full_seconds:g} s at most; leave it out"
        )
    return configured or min(context_needed(longest), full_seconds)


def context_needed(longest: float) -> float:
    """Seconds of context for clips of up to `longest` seconds."""
    return math.ceil((longest + MARGIN_SECONDS) / ROUND_TO_SECONDS) * ROUND_TO_SECONDS


@dataclass(frozen=True)
class Places:
    """Positions of one clip that are encoded, and how many each stands for."""

    positions: tuple[int, ...]  # in the checkpoint's window, ascending
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.positions)


# An entry takes up to 60 kB: without thinned edges there are as many as lengths of context, with them one a clip.
@functools.lru_cache(maxsize=1_024)
def _places(lead: int, end: int, full: int) -> Places:
    """All from `lead` to `end` of `full` positions, and of those before and behind them a few."""
    positions = []
    counts = []
    for first, stretches in (
        (0, thinned_to(lead, LEAD_PIECES)),
        (lead, [(position, 1) for position in range(end - lead)]),
        (end, thinned_to(full - end, TAIL_PIECES)),
    ):
        positions += [first + offset for offset, _ in stretches]
        counts += [count for _, count in stretches]
    return Places(tuple(positions), tuple(counts))


@functools.cache
def thinned_to(count: int, pieces: int) -> tuple[tuple[int, int], ...]:
    """As `thinned`, in exactly `pieces` stretches, or in `count` of one position where there are no more."""
    lengths = [length for _, length in thinned(count)]
    while len(lengths) < min(pieces, count):
        longest = lengths.index(max(lengths))
        half = lengths[longest] // 2
        lengths[longest : longest + 1] = [half, lengths[longest] - half]
    stretches = []
    start = 0
    for length in lengths:
        stretches.append((start + (length - 1) // 2, length))
        start += length
    return tuple(stretches)


@functools.cache
def thinned(count: int) -> tuple[tuple[int, int], ...]:
    """Represents `count` positions of silence by a few: (offset, number that it stands for), dense at both ends.

    Stretches grow by THINNING times their distance from the nearer end: silence sounds alike, and Whisper's states
    change only where the speech ends and where the window ends. Equally spaced positions would have to be five times
    as many (measured on tiny.en: studies/README.md).
    """
    stretches = []
    start = 0
    while start < count:
        growth = THINNING * min(start, count - start)
        length = max(1, min(int(1 + growth), count - start))
        stretches.append((start + (length - 1) // 2, length))
        start += length
    return tuple(stretches)
