"""What a search would do and about how long it would take, for a Python caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from tmsearch.api.view import html
from tmsearch.cli.services.plan import StudyPlan


@dataclass(frozen=True, repr=False)
class Plan:
    """What `tmsearch run --dry-run` prints.

    Attributes:
        study: its name.
        storage: the database's URL, without a password.
        exists: whether the study has begun, and a search would continue it.
        trainings: as many trainings in full take as many steps as are expected.
        seconds: of training by all workers together, as expected; on a GPU of evaluation, too.
        dollars: what that costs at the price that was given; None: without one.
    """

    study: str
    storage: str
    exists: bool
    trainings: float
    seconds: float
    dollars: float | None
    lines: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The lines in a notebook."""
        return html.page([[(line, "")] for line in self.lines])


def plan_of(study: str, storage: str, plan: StudyPlan) -> Plan:
    """The plan of the study in the storage of that name."""
    last = f"nothing was written; `tmsearch.search` {'continues' if plan.exists else 'starts'} the study"
    return Plan(study, storage, plan.exists, plan.trainings, plan.seconds, plan.dollars, (*plan.lines, last))
