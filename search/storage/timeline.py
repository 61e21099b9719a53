"""A study's results in the order in which they were recorded, with what the study had cost by then."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sqlalchemy as sa

from search.process_id import ProcessId
from search.records import IMPORTED
from search.storage.ledger import Ledger
from search.storage.schema import configurations, segments, studies


@dataclass(frozen=True)
class RecordedResult:
    """One result as it was recorded.

    `committed`: seconds since 1970 by the database's clock. `spent`: seconds of the study's training and evaluation up
    to and including this result.
    """

    committed: float
    host: str
    number: int
    step: int
    value: float
    spent: float


def recorded_results(ledger: Ledger) -> tuple[RecordedResult, ...]:
    """Every finite result of the study's own configurations, first to last.

    Imported trainings took nothing of this study's time and are left out.
    """
    query = (
        sa.select(segments, configurations.c.number)
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .join(studies, studies.c.id == configurations.c.study_id)
        .where(studies.c.name == ledger.study, configurations.c.origin != IMPORTED)
        .order_by(segments.c.id)  # the clock may have been stepped back
    )
    with ledger.storage.read() as connection:
        rows = connection.execute(query).all()
    results = []
    spent = 0.0
    for row in rows:
        for cost in ("train_seconds", "repeated_seconds", "eval_seconds"):
            spent += float(row.metrics.get(cost) or 0.0)
        if math.isfinite(row.value):
            process = ProcessId.parse(row.worker)
            host = process.host if process else row.worker
            results.append(RecordedResult(row.committed, host, row.number, row.step, row.value, spent))
    return tuple(results)
