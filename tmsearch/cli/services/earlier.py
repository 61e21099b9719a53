"""What a new study is to know of earlier ones in its storage, ranked by likeness of model and hours of speech."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from search import study
from search.samplers.earlier import EarlierStudies, likeness, ratio
from search.samplers.earlier_studies import gather
from search.space.search_space import Space
from search.storage.database import Storage
from search.storage.ledger import Ledger
from tmsearch.cli.services.knobs import TRAIN
from tmsearch.cli.services.plan import models
from tmsearch.model_sizes import millions_of_parameters
from tmsearch.trial import facts


def known_to(storage: Storage, space: Space, data: Mapping[str, Any]) -> EarlierStudies | None:
    """What the storage's other studies know of the knobs that a new study searches; None: nothing.

    Confirmations train again what their search has trained, and do not count.

    Args:
        storage: where the new study is to be kept.
        space: of the new study.
        data: what was found out about its data, as the fact of a study has it.
    """
    if not space.budget.learns_from_earlier:
        return None

    def like(earlier: Space, earlier_facts: Mapping[str, Any]) -> float | None:
        if facts.CONFIRMS in earlier_facts:
            return None
        hours = ratio(_training_seconds(data), _training_seconds(earlier_facts.get(facts.DATA, {})))
        return likeness([_size_ratio(space, earlier), hours])

    ledgers = [Ledger(storage, name) for name in study.names(storage) if name != space.study]
    return gather(ledgers, space, TRAIN, like)


def _size_ratio(space: Space, earlier: Space) -> float | None:
    """How much larger the models are, on average; None where a size is not known."""
    if sorted(models(space)) == sorted(models(earlier)):
        return 1.0
    return ratio(_millions(space), _millions(earlier))


def _millions(space: Space) -> float | None:
    """The geometric mean of the models' parameters, in millions."""
    sizes = [millions_of_parameters(name) for name in models(space)]
    logs = [math.log(size) for size in sizes if size]
    return math.exp(math.fsum(logs) / len(logs)) if logs and len(logs) == len(sizes) else None


def _training_seconds(data: Mapping[str, Any]) -> float | None:
    """Of the clips that are trained on, as long as all clips are on average; None where it is not known."""
    train = data.get("split", {}).get("train")
    if not train or not data.get("clips") or not data.get("seconds"):
        return None
    return float(data["seconds"]) * len(train) / float(data["clips"])
