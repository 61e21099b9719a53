"""What a search or a confirmation would do and about how long it would take, for a Python caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from tmsearch.api.view import html
from tmsearch.cli.services.plan import StudyPlan


@dataclass(frozen=True, repr=False)
class Plan:
    """What `tmsearch run --dry-run` prints, or `tmsearch confirm --dry-run`.

    Attributes:
        study: its name.
        storage: the database's URL, without a password.
        exists: whether the study has begun, and the call would continue it.
        trainings: as many trainings in full take as many steps as are expected; of a confirmation how many it has
            at most, those that are done among them.
        seconds: of training by all workers together, as expected; on a GPU of evaluation, too. Of a confirmation at
            most, with evaluation, and what is spent already.
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


def plan_of(study: str, storage: str, plan: StudyPlan, call: str) -> Plan:
    """The plan of the study in the storage of that name, which a `call` would start or continue."""
    lines = (*plan.lines, plan.last_line(f"`{call}`"))
    return Plan(study, storage, plan.exists, plan.trainings, plan.seconds, plan.dollars, lines)
