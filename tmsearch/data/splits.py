"""Train, validation and test: drawn once by seed, so that no two share a sentence, speaker or session.

A component is a list of clip names that must stay together; a part is train, validation or test.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tmsearch.config import DataConfig
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.errors import InputError

Component = list[str]  # clip names
Parts = tuple[list[str], list[str], list[str]]  # clip names of train, validation, test


@dataclass(frozen=True)
class Split:
    """Clip names of each part, sorted; `grouped_by` lists what no two parts share."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    grouped_by: tuple[str, ...] = ("sentence",)

    def to_json(self) -> dict[str, Any]:
        return {
            "train": list(self.train),
            "validation": list(self.validation),
            "test": list(self.test),
            "grouped_by": list(self.grouped_by),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Split:
        return cls(
            tuple(saved["train"]),
            tuple(saved["validation"]),
            tuple(saved["test"]),
            tuple(saved.get("grouped_by", ("sentence",))),
        )


def split(corpus: Corpus, config: DataConfig) -> Split:
    """Divides the clips; `config.fold` > 0 gives another validation set beside the same test split.

    Raises:
        InputError: The sizes in `config` cannot be met.
    """
    fold_0 = _split_fold_0(corpus, config)
    return folded(fold_0, corpus, config) if config.fold else fold_0


def folded(fold_0: Split, corpus: Corpus, config: DataConfig) -> Split:
    """Fold `config.fold`: its validation set shares no clip with those of folds 0 to `config.fold` - 1.

    Each is as large as that of `fold_0`, as nearly as whole groups allow; the test split stays the same.

    Raises:
        InputError: There are fewer disjoint validation sets.
    """
    locked = set(fold_0.test)
    clips = sorted((clip for clip in corpus.clips if clip.name not in locked), key=lambda clip: clip.name)
    components = _components(clips, fold_0.grouped_by[1:])
    wanted = len(fold_0.validation)
    used = set(fold_0.validation)
    validation = list(fold_0.validation)
    for fold in range(1, config.fold + 1):
        unused = [component for component in components if component[0] not in used]
        subsets = _subsets(_shuffled(unused, f"{config.split_seed}\0{fold}"), wanted)
        validation = _names(next(subsets, []))
        if 2 * len(validation) < wanted:
            raise InputError(
                f"data.fold: {config.fold}: there are only {fold} disjoint validation sets of {wanted} clips beside "
                f"the test split; take folds below {fold}"
            )
        used |= set(validation)
    held_out = set(validation)
    train = tuple(clip.name for clip in clips if clip.name not in held_out)
    return Split(train, tuple(sorted(validation)), fold_0.test, fold_0.grouped_by)


def _split_fold_0(corpus: Corpus, config: DataConfig) -> Split:
    """Divides the clips as near to `config.validation` and `config.test` as whole groups allow.

    A function of names, texts, group columns and `split_seed`: the order of rows does not count. Sentences and
    `config.group_column`, if named, are never divided, and an InputError says when that leaves a part empty. Columns
    that only look like a speaker's or a session's keep their groups whole when validation and test then come within
    a factor of two of the sizes in `config` and train keeps at least half; else the coarsest column is dropped first.
    """
    clips = sorted(corpus.clips, key=lambda clip: clip.name)
    wanted = _wanted_sizes(len(clips), config)
    columns = _group_columns(clips)
    if config.group_column and config.group_column not in columns:
        raise InputError(f"data.group_column: {config.group_column} holds no value in {config.dataset}")
    while True:
        parts = _divide(_components(clips, columns), wanted, config.split_seed)
        is_last_try = bool(config.group_column) or not columns
        if parts and (is_last_try or _are_near(parts, wanted, len(clips))):
            break
        if is_last_try:
            raise InputError(_too_few(clips, columns, config))
        columns = columns[1:]
    train, validation, test = (tuple(sorted(part)) for part in parts)
    return Split(train, validation, test, ("sentence", *sorted(columns)))


def _wanted_sizes(clips: int, config: DataConfig) -> tuple[int, int]:
    """Sizes of validation and test, in clips."""
    validation = _size("validation", config.validation, clips)
    test = _size("test", config.test, clips)
    if validation == 0:
        raise InputError("data.validation: 0 leaves nothing to choose a configuration by; give a fraction or a count")
    if validation + test >= clips:
        raise InputError(
            f"data.validation: {validation} clips for validation and {test} for test leave none of {clips} to train "
            "on; give smaller fractions or counts"
        )
    return validation, test


def _size(key: str, value: float, clips: int) -> int:
    """A fraction or a count of clips as a count."""
    if not math.isfinite(value) or value < 0:
        raise InputError(f"data.{key}: {value} is not a share of the clips; give a fraction below 1 or a count")
    if isinstance(value, float) and value >= 1:
        if value == 1 or not value.is_integer():
            raise InputError(f"data.{key}: {value} is neither a fraction below 1 nor a whole count, such as 124")
        return int(value)
    if isinstance(value, int):
        return value
    return max(1, round(value * clips)) if value > 0 else 0


def _group_columns(clips: Sequence[Clip]) -> list[str]:
    """The group columns, the coarsest (with the fewest distinct values) first."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for entry in clip.group[1:]:
            column, _, value = entry.partition("=")
            values[column].add(value)
    return sorted(values, key=lambda column: (len(values[column]), column))


def _components(clips: Sequence[Clip], columns: Sequence[str]) -> list[Component]:
    """Clips connected by a sentence or a value of `columns`, directly or through other clips (union-find)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def sentence(clip: Clip) -> str:
        return f"sentence={clip.group[0]}"

    for clip in clips:
        for entry in clip.group[1:]:
            if entry.partition("=")[0] in columns:
                parent[root(sentence(clip))] = root(f"column={entry}")
    members: defaultdict[str, Component] = defaultdict(list)
    for clip in clips:
        members[root(sentence(clip))].append(clip.name)
    return list(members.values())


def _divide(components: list[Component], wanted: tuple[int, int], seed: int) -> Parts | None:
    """The parts nearest to `wanted` (validation, test) in least squares, or None if a wanted part would be empty."""
    shuffled = _shuffled(components, str(seed))
    wanted_validation, wanted_test = wanted
    best: Parts | None = None
    best_error: float = math.inf
    for test in _subsets(shuffled, wanted_test):
        test_error = (_count(test) - wanted_test) ** 2
        if test_error >= best_error:
            break
        remaining = _without(shuffled, test)
        for validation in _subsets(remaining, wanted_validation):
            error = test_error + (_count(validation) - wanted_validation) ** 2
            train = _without(remaining, validation)
            if train and error < best_error:
                best = (_names(train), _names(validation), _names(test))
                best_error = error
            if train or error >= best_error:
                break
    return best


def _shuffled(components: list[Component], salt: str) -> list[Component]:
    """In an order drawn by `salt` that does not depend on the order of rows."""

    def draw(component: Component) -> str:
        return hashlib.sha256(f"{salt}\0{component[0]}".encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(components, key=draw)


def _subsets(components: list[Component], target: int) -> Iterator[list[Component]]:
    """A subset of the components for each total of clips that can be reached, that nearest to `target` first.

    Where several subsets have the same total, components at the front are preferred: their order is the draw. Totals
    of up to twice the target are searched, as sets of bits.
    """
    if target == 0:
        yield []
        return
    if not components:
        return
    sizes = [len(component) for component in components]
    highest = max(2 * target, min(sizes))
    mask = (1 << (highest + 1)) - 1
    reachable = [1]
    for size in reversed(sizes):
        reachable.append((reachable[-1] | reachable[-1] << size) & mask)
    reachable.reverse()  # bit s of reachable[i]: components i and later have a subset of s clips
    totals = [total for total in range(1, highest + 1) if reachable[0] >> total & 1]
    for total in sorted(totals, key=lambda total: (abs(total - target), total)):
        missing = total
        chosen = []
        for component, by_later in zip(components, reachable[1:], strict=True):
            if len(component) <= missing and by_later >> (missing - len(component)) & 1:
                chosen.append(component)
                missing -= len(component)
        yield chosen


def _without(components: list[Component], taken: list[Component]) -> list[Component]:
    taken_names = {component[0] for component in taken}
    return [component for component in components if component[0] not in taken_names]


def _names(components: list[Component]) -> list[str]:
    return [name for component in components for name in component]


def _count(components: list[Component]) -> int:
    return sum(map(len, components))


def _are_near(parts: Parts, wanted: tuple[int, int], clips: int) -> bool:
    """Whether validation and test are within a factor of two of `wanted`, and train keeps at least half of its size."""
    train, validation, test = map(len, parts)
    if 2 * train < clips - sum(wanted):
        return False
    return all(2 * size >= goal and size <= 2 * goal for size, goal in zip((validation, test), wanted, strict=True))


def _too_few(clips: Sequence[Clip], columns: Sequence[str], config: DataConfig) -> str:
    components = _components(clips, columns)
    largest = max(map(len, components))
    parts = "train, validation and test" if config.test else "train and validation"
    if columns:
        return (
            f"data.group_column: {config.group_column} leaves {len(components)} groups, the largest of {largest} "
            f"clips: too few for {parts}; name a finer column or none"
        )
    return f"{config.dataset}: {len(components)} different sentences in {len(clips)} clips are too few for {parts}"
