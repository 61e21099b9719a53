"""The command data."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from tmsearch.cli.spaces import absolute, load_space
from tmsearch.config import DataConfig


def data(arguments: argparse.Namespace) -> int:
    """Describe a dataset, or the one that a space file names."""
    from tmsearch import clips, describe, splits

    source = arguments.source
    if Path(source).suffix in (".yaml", ".yml"):
        config = DataConfig(**load_space(source, (), None).data)
    else:
        config = DataConfig(dataset=absolute(source))
    # Here the unusable clips are what a person wants to see, however many they are.
    corpus = clips.load(dataclasses.replace(config, max_dropped=1.0))
    described = describe.describe(corpus, splits.split(corpus, config))
    print(json.dumps(described.to_json(), indent=2, ensure_ascii=False) if arguments.json else described.text())
    return 0
