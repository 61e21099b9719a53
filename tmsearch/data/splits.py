"""Train, validation and test: drawn once by seed, with no sentence, speaker or session in two of them."""

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

Parts = tuple[list[str], list[str], list[str]]


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
    """The clips' one division, or with `config.fold` another with the same test split. Raises InputError."""
    first = _first(corpus, config)
    return folded(first, corpus, config) if config.fold else first


def folded(first: Split, corpus: Corpus, config: DataConfig) -> Split:
    """Fold `config.fold`: its validation set shares no clip with those of folds 0 (`first`) and 1 to `fold` - 1.

    Each is as large as the first, as near as whole groups allow; the test split stays as it is. Raises InputError
    where there are not so many.
    """
    locked = set(first.test)
    clips = sorted((clip for clip in corpus.clips if clip.name not in locked), key=lambda clip: clip.name)
    components, wanted = _components(clips, first.grouped_by[1:]), len(first.validation)
    used, chosen = set(first.validation), list(first.validation)
    for fold in range(1, config.fold + 1):
        left = [component for component in components if component[0] not in used]
        found = next(_subsets(_drawn(left, config.split_seed, fold), wanted), [])
        chosen = _names(found)
        if 2 * len(chosen) < wanted:
            raise InputError(
                f"data.fold: {config.fold}: there are only {fold} disjoint validation sets of {wanted} clips beside "
                f"the test split; take folds below {fold}"
            )
        used |= set(chosen)
    kept = set(chosen)
    train = tuple(clip.name for clip in clips if clip.name not in kept)
    return Split(train, tuple(sorted(chosen)), first.test, first.grouped_by)


def _drawn(components: list[list[str]], seed: int, fold: int) -> list[list[str]]:
    """In the order that a seed and a fold draw."""

    def drawn(component: list[str]) -> str:
        return hashlib.sha256(f"{seed}\0{fold}\0{component[0]}".encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(components, key=drawn)


def _first(corpus: Corpus, config: DataConfig) -> Split:
    """Divides the clips as near to `config.validation` and `config.test` as whole groups allow.

    A function of names, texts, group columns and `split_seed`: the order of rows does not count. Sentences and
    `config.group_column`, if named, are never divided, and an InputError says when that leaves a part empty. Columns
    that only look like a speaker's or a session's keep their groups whole when validation and test then come within
    a factor of two of what was asked and train keeps at least half; else the coarsest is let go first.
    """
    clips = sorted(corpus.clips, key=lambda clip: clip.name)
    wanted = _wanted(len(clips), config)
    columns = _columns(clips)
    if config.group_column and config.group_column not in columns:
        raise InputError(f"data.group_column: {config.group_column} holds no value in {config.dataset}")
    while True:
        parts = _divide(_components(clips, columns), wanted, config.split_seed)
        forced = config.group_column or not columns
        if parts and (forced or _near(parts, wanted, len(clips))):
            break
        if forced:
            raise InputError(_too_few(clips, columns, config))
        columns = columns[1:]
    train, validation, test = (tuple(sorted(part)) for part in parts)
    return Split(train, validation, test, ("sentence", *sorted(columns)))


def _wanted(clips: int, config: DataConfig) -> tuple[int, int]:
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


def _size(key: str, asked: float, clips: int) -> int:
    if not math.isfinite(asked) or asked < 0:
        raise InputError(f"data.{key}: {asked} is no share of the clips; give a fraction below 1 or a count")
    if isinstance(asked, float) and asked >= 1:
        if asked == 1 or not asked.is_integer():
            raise InputError(f"data.{key}: {asked} is neither a fraction below 1 nor a whole count, such as 124")
        return int(asked)
    if isinstance(asked, int):
        return asked
    return max(1, round(asked * clips)) if asked > 0 else 0


def _columns(clips: Sequence[Clip]) -> list[str]:
    """The group columns, the one with the fewest distinct values first."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for entry in clip.group[1:]:
            column, _, value = entry.partition("=")
            values[column].add(value)
    return sorted(values, key=lambda column: (len(values[column]), column))


def _components(clips: Sequence[Clip], columns: Sequence[str]) -> list[list[str]]:
    """Names of clips that hang together, through a sentence or a value of `columns`, at any number of removes."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def key_of(clip: Clip) -> str:
        return f"sentence={clip.group[0]}"

    for clip in clips:
        for entry in clip.group[1:]:
            if entry.partition("=")[0] in columns:
                parent[root(key_of(clip))] = root(f"column={entry}")
    members: defaultdict[str, list[str]] = defaultdict(list)
    for clip in clips:
        members[root(key_of(clip))].append(clip.name)
    return list(members.values())


def _divide(components: list[list[str]], wanted: tuple[int, int], seed: int) -> Parts | None:
    """(train, validation, test) nearest to `wanted` in least squares, or None if one asked for would be empty."""

    def drawn(component: list[str]) -> str:
        return hashlib.sha256(f"{seed}\0{component[0]}".encode("utf-8", "surrogatepass")).hexdigest()

    order = sorted(components, key=drawn)
    validation, test = wanted
    best: Parts | None = None
    least: float = math.inf
    for in_test in _subsets(order, test):
        off_test = (sum(map(len, in_test)) - test) ** 2
        if off_test >= least:
            break
        rest = _without(order, in_test)
        for in_validation in _subsets(rest, validation):
            off = off_test + (sum(map(len, in_validation)) - validation) ** 2
            in_train = _without(rest, in_validation)
            if in_train and off < least:
                best, least = (_names(in_train), _names(in_validation), _names(in_test)), off
            if in_train or off >= least:
                break
    return best


def _subsets(components: list[list[str]], target: int) -> Iterator[list[list[str]]]:
    """One subset of the components for each number of clips that subsets can have, that nearest to `target` first.

    Components at the front are taken where there is a choice: their order is the draw. Sums of up to twice the
    target are looked at, as sets of bits.
    """
    if target == 0:
        yield []
        return
    if not components:
        return
    sizes = [len(component) for component in components]
    highest = max(2 * target, min(sizes))
    mask = (1 << (highest + 1)) - 1
    reach = [1]
    for size in reversed(sizes):
        reach.append((reach[-1] | reach[-1] << size) & mask)
    reach.reverse()  # bit s of reach[i]: components i and later have a subset of s clips
    sums = [total for total in range(1, highest + 1) if reach[0] >> total & 1]
    for total in sorted(sums, key=lambda total: (abs(total - target), total)):
        left, chosen = total, []
        for component, onwards in zip(components, reach[1:], strict=True):
            if len(component) <= left and onwards >> (left - len(component)) & 1:
                chosen.append(component)
                left -= len(component)
        yield chosen


def _without(components: list[list[str]], taken: list[list[str]]) -> list[list[str]]:
    firsts = {component[0] for component in taken}
    return [component for component in components if component[0] not in firsts]


def _names(components: list[list[str]]) -> list[str]:
    return [name for component in components for name in component]


def _near(parts: Parts, wanted: tuple[int, int], clips: int) -> bool:
    train, validation, test = map(len, parts)
    asked = ((validation, wanted[0]), (test, wanted[1]))
    return 2 * train >= clips - sum(wanted) and all(want <= 2 * got and got <= 2 * want for got, want in asked)


def _too_few(clips: Sequence[Clip], columns: Sequence[str], config: DataConfig) -> str:
    groups = _components(clips, columns)
    parts = "train, validation and test" if config.test else "train and validation"
    largest = max(map(len, groups))
    if columns:
        return (
            f"data.group_column: {config.group_column} leaves {len(groups)} groups, the largest of {largest} clips: "
            f"too few for {parts}; name a finer column or none"
        )
    return f"{config.dataset}: {len(groups)} different sentences in {len(clips)} clips are too few for {parts}"
