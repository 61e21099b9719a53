"""A study's results in the order in which they were recorded, with what the study had cost by then."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sqlalchemy as sa

from search.process_id import ProcessId
from search.records import IMPORTED
from search.storage.ledger import Ledger
from search.storage.reader import StoredMetrics
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
        sa.select(
            segments.c.step,
            segments.c.value,
            sa.cast(segments.c.metrics, sa.Text).label("metrics"),
            segments.c.worker,
            segments.c.committed,
            configurations.c.number,
        )
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .join(studies, studies.c.id == configurations.c.study_id)
        .where(studies.c.name == ledger.study, configurations.c.origin != IMPORTED)
        .order_by(segments.c.id)  # the clock may have been stepped back
    )
    results = []
    spent = 0.0
    hosts: dict[str, str] = {}
    with ledger.storage.read() as connection:
        for row in connection.execute(query):
            metrics = StoredMetrics(row.metrics)  # not the errors by clip, of which there may be millions
            for cost in ("train_seconds", "repeated_seconds", "eval_seconds"):
                spent += float(metrics.get(cost) or 0.0)
            if not math.isfinite(row.value):
                continue
            if row.worker not in hosts:
                process = ProcessId.parse(row.worker)
                hosts[row.worker] = process.host if process else row.worker
            host = hosts[row.worker]
            results.append(RecordedResult(row.committed, host, row.number, row.step, row.value, spent))
    return tuple(results)
