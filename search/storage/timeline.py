"""When each result came and what it had cost: a study's results in the order in which they were recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.process_id import ProcessId
from search.records import IMPORTED
from search.storage.ledger import Ledger
from search.storage.schema import configurations, segments, studies


@dataclass(frozen=True)
class RecordedResult:
    """One result as it was recorded: at which database's time, on which host, after how many seconds of the study."""

    committed: float
    host: str
    number: int
    step: int
    value: float
    spent: float


def recorded_results(ledger: Ledger) -> tuple[RecordedResult, ...]:
    """Every finite result of the study's own configurations, first to last; seconds are training and evaluation.

    Imported trainings took nothing of this study's time and are left out.
    """
    query = (
        sa.select(segments, configurations.c.number)
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .join(studies, studies.c.id == configurations.c.study_id)
        .where(studies.c.name == ledger.study, configurations.c.origin != IMPORTED)
        .order_by(segments.c.committed, segments.c.id)
    )
    with ledger.storage.read() as connection:
        rows = connection.execute(query).all()
    found, spent = [], 0.0
    for row in rows:
        spent += _seconds(row.metrics)
        if math.isfinite(row.value):
            identity = ProcessId.parse(row.worker)
            host = identity.host if identity else row.worker
            found.append(RecordedResult(row.committed, host, row.number, row.step, row.value, spent))
    return tuple(found)


def _seconds(metrics: Any) -> float:
    return float(metrics.get("train_seconds") or 0.0) + float(metrics.get("eval_seconds") or 0.0)
