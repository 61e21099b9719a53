"""A dataset that a person wants to know about: by its name, or by the space file that names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tmsearch.cli.services.knobs import absolute, data_section, load_space
from tmsearch.config import DataConfig

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus
    from tmsearch.data.splits import Split
    from tmsearch.data_quality.summary import Description


@dataclass(frozen=True)
class Source:
    """What a person named: a dataset, or a space file that names one.

    Attributes:
        config: The dataset's settings.
        is_space: Whether they come from a space file.
        given: The names of those that were given; the others are assumed.
    """

    config: DataConfig
    is_space: bool
    given: frozenset[str]


@dataclass(frozen=True)
class Dataset:
    """A dataset's clips and how they would be split."""

    config: DataConfig
    corpus: Corpus
    split: Split


def source_of(source: str, assignments: Sequence[str]) -> Source:
    """What `source` names.

    Args:
        source: a dataset as in data.dataset, or a space file.
        assignments: data.KEY=VALUE, as after --set.

    Raises:
        UserError: the file or an assignment is wrong.
    """
    is_space = Path(source).suffix in (".yaml", ".yml")
    if is_space:
        given = load_space(source, assignments, None).data
    else:
        given = data_section(absolute(source), assignments, "data")
    return Source(DataConfig(**given), is_space, frozenset(given))


def load(source: Source) -> Dataset:
    """Read the dataset's clips, however many of them are unusable: a person wants to see those; raises InputError.

    A dataset alone is divided as the space would that `tmsearch init` writes for it.
    """
    from tmsearch.data import corpus as corpora
    from tmsearch.data import splits
    from tmsearch.data_quality import suggest_space

    config = source.config
    corpus = corpora.load(dataclasses.replace(config, max_dropped=1.0))
    if not source.is_space:
        config = suggest_space.with_parts(config, source.given, len(corpus.clips))
    return Dataset(config, corpus, splits.split(corpus, config))


def describe(dataset: Dataset) -> Description:
    """The dataset in numbers; every clip is decoded once."""
    from tmsearch.data_quality import microphones, summary

    heard = microphones.survey(dataset.config).microphones
    return summary.describe(dataset.corpus, dataset.split, microphones=heard)
