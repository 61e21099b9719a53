"""A dataset in numbers, from Python."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tmsearch.api.errors import one_line_errors
from tmsearch.api.view import html
from tmsearch.cli.services import datasets

if TYPE_CHECKING:
    from tmsearch.data_quality.summary import Description


@dataclass(frozen=True, repr=False)
class Data:
    """What `tmsearch data` prints of a dataset.

    Attributes:
        description: every number of it: clips, seconds, levels in dBFS, words, parts of the split, and so on.
    """

    description: Description

    @property
    def clips(self) -> int:
        """How many clips are usable."""
        return self.description.clips

    @property
    def seconds(self) -> float:
        """How long they are together."""
        return self.description.seconds

    def to_json(self) -> dict[str, Any]:
        """All of it, as `tmsearch data --json` prints it."""
        return self.description.to_json()

    def __str__(self) -> str:
        return self.description.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The text in a notebook."""
        return html.page([[(line, "")] for line in str(self).splitlines()])


def data(source: str | os.PathLike[str], **settings: Any) -> Data:
    """Describe a dataset, as `tmsearch data` does.

    Args:
        source: a folder of audio with metadata.csv, a hub id, parquet, `demo`, or a space file that names a dataset.
        settings: of the data, by their names in a space file: language="en", text_column="transcript", channel=1.

    Raises:
        InputError: the dataset can't be read, or a setting is wrong.
    """
    with one_line_errors():
        assignments = [f"data.{name}={json.dumps(value, default=os.fspath)}" for name, value in settings.items()]
        named = datasets.source_of(os.fspath(source), assignments)
        if not named.is_space:  # under the name that the caller gave, in place of its absolute path
            config = dataclasses.replace(named.config, dataset=os.fspath(source))
            named = dataclasses.replace(named, config=config)
        return Data(datasets.describe(datasets.load(named)))
