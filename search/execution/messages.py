"""Messages between the supervisor and the training process: frozen records with `to_json()` and `from_json()`.

The supervisor sends jobs and requests to stop; the training process reports events on the way and answers each job
with one event. What does not parse raises MessageError; wire.py has the lines themselves.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from search.execution.wire import MessageError

FailureKind = Literal["diverged", "oom", "disk", "machine", "input", "bug"]


# How a value of each declared type looks in JSON, and what to call it. Exact types, as true and false are not integers.
_JSON_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),  # an integer stays an integer: the ledger keeps what was sent
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a string"),
    "FailureKind": ((str,), "a string"),
    "Mapping[str, Any]": ((dict,), "an object"),
    "tuple[Mapping[str, Any], ...]": ((list,), "an array of objects"),
}


class _Message:
    """A frozen record that is one JSON object on the wire."""

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        """The record; raises MessageError where a field is missing or not of its declared type."""
        values = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            values[field.name] = _value(message, field)
        return cls(**values)


def _value(message: Mapping[str, Any], field: dataclasses.Field[Any]) -> Any:
    declared = str(field.type)
    optional = declared.endswith(" | None")
    value: Any = message.get(field.name)
    if field.name not in message and field.default is dataclasses.MISSING:
        raise MessageError(f"no {field.name!r}", json.dumps(message))
    if declared == "Any" or (optional and value is None):
        return value
    kinds, expected = _JSON_TYPES[declared.removesuffix(" | None")]
    fits = type(value) in kinds and all(type(item) is dict for item in (value if list in kinds else ()))
    if not fits:
        raise MessageError(f"{field.name!r} is not {expected}", json.dumps(message))
    if float in kinds and not _is_finite(value):
        raise MessageError(f"{field.name!r} is too large", json.dumps(message))
    return tuple(value) if list in kinds else value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer of hundreds of digits
        return False


class _TrialJob(_Message):
    """A job with settings: the application's own fields, which the engine passes on unread.

    On the wire they stand beside the job's other fields.
    """

    job: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        fields = vars(self) | {"job": self.job}
        return {**fields.pop("settings"), **fields}

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        """Every key that is not the engine's own belongs to the settings."""
        engine_keys = {"job", *(field.name for field in dataclasses.fields(cls))}  # type: ignore[arg-type]
        settings = {key: value for key, value in message.items() if key not in engine_keys}
        return super().from_json({**message, "settings": settings})


class _Event(_Message):
    """What the training process reports."""

    event: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        return {"event": self.event, **vars(self)}


@dataclass(frozen=True)
class SegmentJob(_TrialJob):
    """Train one configuration from `first_step` to `last_step` and score it.

    `token` fences the claim; its checkpoints go to a folder of their own. `facts` are what the study found out so far.
    """

    job: ClassVar[str] = "segment"

    number: int
    token: int
    params: Mapping[str, Any]
    first_step: int
    last_step: int
    seed: int
    folder: str
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class TestJob(_TrialJob):
    """Score the kept model of a finished training on the test split."""

    __test__: ClassVar[bool] = False  # not a test class of pytest's
    job: ClassVar[str] = "test"

    params: Mapping[str, Any]
    seed: int
    folder: str
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class CheckJob(_Message):
    """Load the data and look at the models.

    `candidates` holds sets of parameters, at least one for each model; `measure` asks for the machine's rate;
    `objective` is what will be minimised.
    """

    job: ClassVar[str] = "check"

    data: Mapping[str, Any]
    candidates: tuple[Mapping[str, Any], ...]
    measure: bool
    objective: str

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, **vars(self)}


@dataclass(frozen=True)
class StopRequest:
    """Finish the current step, save a checkpoint and answer SegmentStopped."""

    def to_json(self) -> dict[str, Any]:
        return {"stop": True}


@dataclass(frozen=True)
class ProgressEvent(_Event):
    """One update of the model: mean loss, learning rate, gradient norm before clipping, and its time in seconds."""

    event: ClassVar[str] = "progress"

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Without what is not known."""
        present = {name: value for name, value in vars(self).items() if value is not None}
        return {"event": self.event, **present}


@dataclass(frozen=True)
class Alive(_Event):
    """A sign of life where no step ends, such as between two batches of an evaluation."""

    event: ClassVar[str] = "alive"


@dataclass(frozen=True)
class Fact(_Event):
    """Something that holds for the whole study; the first value reported is kept."""

    event: ClassVar[str] = "fact"

    key: str
    value: Any


@dataclass(frozen=True)
class Limit(_Event):
    """An upper limit that holds for the whole study; the smallest value reported is kept."""

    event: ClassVar[str] = "limit"

    key: str
    value: float


@dataclass(frozen=True)
class SegmentResult(_Event):
    """The objective at the segment's last step, and what else was measured."""

    event: ClassVar[str] = "result"

    value: float
    metrics: Mapping[str, Any]

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        result = super().from_json(message)
        return dataclasses.replace(result, value=float(result.value))


@dataclass(frozen=True)
class Checked(_Event):
    """The answer to CheckJob: what the study keeps of its data, each model by name, the machine's rate if measured."""

    event: ClassVar[str] = "checked"

    data: Mapping[str, Any]
    models: Mapping[str, Any]
    flops_per_second: float | None


@dataclass(frozen=True)
class Tested(_Event):
    """The answer to TestJob: scores in the application's own form."""

    event: ClassVar[str] = "tested"

    scores: Mapping[str, Any]


@dataclass(frozen=True)
class SegmentStopped(_Event):
    """Stopped on request after `step`; None where the process was ended before it could say."""

    event: ClassVar[str] = "stopped"

    step: int | None

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        stopped = super().from_json(message)
        if stopped.step is None:  # what was ended says nothing
            raise MessageError("'step' is not an integer", json.dumps(dict(message)))
        return stopped


@dataclass(frozen=True)
class Failure(_Event):
    """The job failed: which kind of failure, and why in one line."""

    event: ClassVar[str] = "failure"

    failure: FailureKind
    reason: str

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        failure = super().from_json(message)
        if failure.failure not in get_args(FailureKind):
            raise MessageError("unknown failure", json.dumps(dict(message)))
        return failure


Job = SegmentJob | CheckJob | TestJob
PassingEvent = ProgressEvent | Alive | Fact | Limit
JobAnswer = SegmentResult | Checked | Tested | SegmentStopped | Failure
Event = PassingEvent | JobAnswer

_JOBS: dict[str, type[Job]] = {kind.job: kind for kind in (SegmentJob, CheckJob, TestJob)}
_EVENT_KINDS: tuple[type[Event], ...] = (
    ProgressEvent,
    Alive,
    Fact,
    Limit,
    SegmentResult,
    Checked,
    Tested,
    SegmentStopped,
    Failure,
)
_EVENTS: dict[str, type[Event]] = {kind.event: kind for kind in _EVENT_KINDS}


def job_from_json(message: Mapping[str, Any]) -> Job | StopRequest:
    """What the supervisor wants of the training process; raises MessageError."""
    if "stop" in message:
        return StopRequest()
    kind = message.get("job")
    if not isinstance(kind, str) or kind not in _JOBS:
        raise MessageError("unknown job", json.dumps(dict(message)))
    return _JOBS[kind].from_json(message)


def event_from_json(message: Mapping[str, Any]) -> Event:
    """What the training process reports; raises MessageError."""
    kind = message.get("event")
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise MessageError("unknown event", json.dumps(dict(message)))
    return _EVENTS[kind].from_json(message)
