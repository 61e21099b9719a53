"""Messages between the supervisor and the training process: frozen records with `to_json()` and `from_json()`.

The supervisor sends jobs and requests to stop; the training process reports events on the way and answers each job
with one event. What does not parse raises MessageError; wire.py has the lines themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

from search.execution.wire import MessageError

FailureKind = Literal["diverged", "oom", "disk", "input", "bug"]


class _Fields:
    """The fields of one JSON object, each of the type that its message declares."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._message = message

    def value(self, key: str) -> Any:
        if key not in self._message:
            raise self._error(f"no {key!r}")
        return self._message[key]

    def text(self, key: str) -> str:
        return cast(str, self._typed(key, (str,), "a string"))

    def integer(self, key: str) -> int:
        return cast(int, self._typed(key, (int,), "an integer"))

    def number(self, key: str) -> float:
        """An integer stays an integer: the ledger keeps what was sent."""
        value = self._typed(key, (int, float), "a number")
        try:
            float(value)
        except OverflowError:
            raise self._error(f"{key!r} is too large") from None
        return cast(float, value)

    def flag(self, key: str) -> bool:
        return cast(bool, self._typed(key, (bool,), "true or false"))

    def mapping(self, key: str) -> dict[str, Any]:
        return cast(dict[str, Any], self._typed(key, (dict,), "an object"))

    def mappings(self, key: str) -> tuple[dict[str, Any], ...]:
        items = self._typed(key, (list,), "an array of objects")
        if not all(isinstance(item, dict) for item in items):
            raise self._error(f"{key!r} is not an array of objects")
        return tuple(items)

    def optional_number(self, key: str) -> float | None:
        return None if self._message.get(key) is None else self.number(key)

    def _typed(self, key: str, kinds: tuple[type, ...], expected: str) -> Any:
        value = self.value(key)
        if type(value) not in kinds:  # not isinstance: true and false are no integers
            raise self._error(f"{key!r} is not {expected}")
        return value

    def _error(self, problem: str) -> MessageError:
        return MessageError(problem, json.dumps(self._message))


class _TrialJob:
    """A job with settings: the application's own fields, which the engine passes on unread.

    On the wire they stand beside the job's other fields.
    """

    job: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        fields = vars(self) | {"job": self.job}
        return {**fields.pop("settings"), **fields}


class _Event:
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

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> SegmentJob:
        fields = _Fields(message)
        return cls(
            number=fields.integer("number"),
            token=fields.integer("token"),
            params=fields.mapping("params"),
            first_step=fields.integer("first_step"),
            last_step=fields.integer("last_step"),
            seed=fields.integer("seed"),
            folder=fields.text("folder"),
            facts=fields.mapping("facts"),
            settings=_settings(cls, message),
        )


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

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> TestJob:
        fields = _Fields(message)
        return cls(
            params=fields.mapping("params"),
            seed=fields.integer("seed"),
            folder=fields.text("folder"),
            facts=fields.mapping("facts"),
            settings=_settings(cls, message),
        )


@dataclass(frozen=True)
class CheckJob:
    """Load the data and look at the models.

    `candidates` holds sets of parameters, at least one for each model; `measure` asks for the machine's rate.
    """

    job: ClassVar[str] = "check"

    data: Mapping[str, Any]
    candidates: tuple[Mapping[str, Any], ...]
    measure: bool

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, **vars(self)}

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> CheckJob:
        fields = _Fields(message)
        return cls(fields.mapping("data"), fields.mappings("candidates"), fields.flag("measure"))


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

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> ProgressEvent:
        fields = _Fields(message)
        return cls(
            step=fields.integer("step"),
            loss=fields.optional_number("loss"),
            learning_rate=fields.optional_number("learning_rate"),
            grad_norm=fields.optional_number("grad_norm"),
            seconds=fields.optional_number("seconds"),
        )


@dataclass(frozen=True)
class Fact(_Event):
    """Something that holds for the whole study; the first value reported is kept."""

    event: ClassVar[str] = "fact"

    key: str
    value: Any

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Fact:
        fields = _Fields(message)
        return cls(fields.text("key"), fields.value("value"))


@dataclass(frozen=True)
class Limit(_Event):
    """An upper limit that holds for the whole study; the smallest value reported is kept."""

    event: ClassVar[str] = "limit"

    key: str
    value: float

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Limit:
        fields = _Fields(message)
        return cls(fields.text("key"), fields.number("value"))


@dataclass(frozen=True)
class SegmentResult(_Event):
    """The objective at the segment's last step, and what else was measured."""

    event: ClassVar[str] = "result"

    value: float
    metrics: Mapping[str, Any]

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> SegmentResult:
        fields = _Fields(message)
        return cls(float(fields.number("value")), fields.mapping("metrics"))


@dataclass(frozen=True)
class Checked(_Event):
    """The answer to CheckJob: what the study keeps of its data, each model by name, the machine's rate if measured."""

    event: ClassVar[str] = "checked"

    data: Mapping[str, Any]
    models: Mapping[str, Any]
    flops_per_second: float | None

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Checked:
        fields = _Fields(message)
        return cls(fields.mapping("data"), fields.mapping("models"), fields.optional_number("flops_per_second"))


@dataclass(frozen=True)
class Tested(_Event):
    """The answer to TestJob: scores in the application's own form."""

    event: ClassVar[str] = "tested"

    scores: Mapping[str, Any]

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Tested:
        return cls(_Fields(message).mapping("scores"))


@dataclass(frozen=True)
class SegmentStopped(_Event):
    """Stopped on request after `step`; None where the process was ended before it could say."""

    event: ClassVar[str] = "stopped"

    step: int | None

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> SegmentStopped:
        return cls(_Fields(message).integer("step"))


@dataclass(frozen=True)
class Failure(_Event):
    """The job failed: which kind of failure, and why in one line."""

    event: ClassVar[str] = "failure"

    failure: FailureKind
    reason: str

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Failure:
        fields = _Fields(message)
        kind = fields.text("failure")
        if kind not in get_args(FailureKind):
            raise MessageError("unknown failure", json.dumps(dict(message)))
        return cls(cast(FailureKind, kind), fields.text("reason"))


Job = SegmentJob | CheckJob | TestJob
PassingEvent = ProgressEvent | Fact | Limit
JobAnswer = SegmentResult | Checked | Tested | SegmentStopped | Failure
Event = PassingEvent | JobAnswer

_JOBS: dict[str, type[Job]] = {kind.job: kind for kind in (SegmentJob, CheckJob, TestJob)}
_EVENTS: dict[str, type[Event]] = {
    kind.event: kind for kind in (ProgressEvent, Fact, Limit, SegmentResult, Checked, Tested, SegmentStopped, Failure)
}


def _settings(job: type[SegmentJob] | type[TestJob], message: Mapping[str, Any]) -> dict[str, Any]:
    named = {"job", *job.__dataclass_fields__}
    return {key: value for key, value in message.items() if key not in named}


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
