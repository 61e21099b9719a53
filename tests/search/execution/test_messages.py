"""Messages of both directions: what is written is read again, and what does not parse is one clear error."""

import dataclasses
import io
import json

import pytest

from search.execution import messages, wire
from search.execution.wire import MessageError

SETTINGS = {"data": {"dataset": "none"}, "threads": 2, "step_seconds": 0.1}
JOBS = [
    messages.SegmentJob(3, 2, {"x": 1.5}, 4, 8, 7, "/studies/toy/trials/0003", {"baseline": 9.0}, SETTINGS),
    messages.TestJob({"x": 1.5}, 7, "/studies/toy/trials/0003", {}, SETTINGS),
    messages.CheckJob({"dataset": "none"}, ({"model": "a"}, {"model": "b"}), measure=True, objective="cer"),
    messages.StopRequest(),
]
EVENTS = [
    messages.ProgressEvent(4, 0.5, 1e-5, 1.25, 0.125),
    messages.ProgressEvent(4, 0.5),
    messages.Fact("words:0", [1, 2, 3]),
    messages.Limit("micro_batch:model", 8),
    messages.SegmentResult(0.25, {"train_seconds": 1.0, "cer": None, "errors": [0, 1]}),
    messages.Checked({"clips": 3}, {"model": {"parameters": 5}}, None),
    messages.Tested({"errors": [1, 0], "words": [2, 2]}),
    messages.SegmentStopped(5),
    messages.Failure("oom", "out of memory"),
]
DEEP = b'{"event": "fact", "key": "k", "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
UNREADABLE = {
    "garbage": (b"\x00\x01 garbage\n", "not JSON"),
    "not UTF-8": (b'{"event": "\xff\xfe"}\n', "not UTF-8"),
    "no object": (b"[1, 2]\n", "not a JSON object"),
    "a bare number": (b"7\n", "not a JSON object"),
    "an empty line": (b"\n", "not JSON"),
    "deep": (DEEP, "nested too deep"),
    "deep but for the parser's limit": (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}\n", "nested too deep"),
    "NaN": (b'{"event": "result", "value": NaN, "metrics": {}}\n', "NaN or infinity"),
    "infinity in a list": (b'{"event": "fact", "key": "k", "value": [1, [2, -Infinity]]}\n', "NaN or infinity"),
    "a number beyond all": (b'{"event": "limit", "key": "k", "value": 1e999}\n', "NaN or infinity"),
    "too long": (b'{"event": "' + b"x" * wire.MAX_LINE_BYTES + b'"}\n', "longer than 64 MiB"),
}


def parsed_event(line: bytes):
    return messages.event_from_json(wire.decode(line))


def parsed_job(line: bytes):
    return messages.job_from_json(wire.decode(line))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_job_is_read_as_it_was_written(job):
    assert parsed_job(wire.encode(job.to_json())) == job


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_as_it_was_written(event):
    assert parsed_event(wire.encode(event.to_json())) == event


def test_an_integer_stays_one():
    assert type(parsed_event(b'{"event": "limit", "key": "k", "value": 8}').value) is int


def test_settings_stand_beside_the_fields_of_a_job():
    assert JOBS[0].to_json()["threads"] == 2


@pytest.mark.parametrize("parse", [parsed_event, parsed_job])
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_message_is_one_clear_error(name, parse):
    line, problem = UNREADABLE[name]
    with pytest.raises(MessageError, match=problem) as error:
        parse(line)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("message", [*JOBS[:3], *EVENTS], ids=lambda message: type(message).__name__)
def test_a_missing_field_and_a_wrong_type_are_named(message):
    optional = {"settings", "loss", "learning_rate", "grad_norm", "seconds", "flops_per_second"}
    parse = messages.job_from_json if message in JOBS else messages.event_from_json
    for field in dataclasses.fields(message):
        if field.name in optional:
            continue
        values = json.loads(wire.encode(message.to_json()))
        del values[field.name]
        with pytest.raises(MessageError, match=field.name):
            parse(values)
        if field.type != "Any":
            with pytest.raises(MessageError, match=field.name):
                parse({**values, field.name: None})


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"event": "progress", "step": True}, "'step' is not an integer"),
        ({"event": "progress", "step": 1.0}, "'step' is not an integer"),
        ({"event": "progress", "step": 1, "loss": "low"}, "'loss' is not a number"),
        ({"event": "result", "value": 10**400, "metrics": {}}, "'value' is too large"),
        ({"event": "result", "value": 0.5, "metrics": [1]}, "'metrics' is not an object"),
        ({"event": "tested", "scores": [1]}, "'scores' is not an object"),
        ({"event": "failure", "failure": "mood", "reason": "bad"}, "unknown failure"),
        ({"event": "song"}, "unknown event"),
        ({"event": ["result"]}, "unknown event"),
        ({}, "unknown event"),
    ],
)
def test_an_event_of_wrong_content_is_refused(message, problem):
    with pytest.raises(MessageError, match=problem):
        messages.event_from_json(message)


@pytest.mark.parametrize("message", [{}, {"job": "dance"}, {"job": {}}])
def test_an_unknown_job_is_refused(message):
    with pytest.raises(MessageError, match="unknown job"):
        messages.job_from_json(message)


def test_candidates_are_objects():
    with pytest.raises(MessageError, match="array of objects"):
        messages.job_from_json({"job": "check", "data": {}, "candidates": [1], "measure": True})


@pytest.mark.parametrize(
    ("value", "problem"),
    [(float("nan"), "NaN"), ([1.0, [float("inf")]], "infinity"), (object(), "not JSON"), ("x" * 2**26, "longer than")],
    ids=["NaN", "infinity in a list", "no JSON type", "too long"],
)
def test_what_cannot_be_read_is_not_written(value, problem):
    with pytest.raises(MessageError, match=problem):
        wire.encode(messages.Fact("k", value).to_json())


def test_too_deep_a_value_is_not_written():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(MessageError, match="nested too deep"):
        wire.encode({"event": "fact", "key": "k", "value": value})


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_read(monkeypatch):
    monkeypatch.setattr(wire, "MAX_LINE_BYTES", 8)
    lines = list(wire.read_lines(io.BytesIO(b"short\n" + b"x" * 100 + b"\nnext\n")))
    assert lines == [b"short\n", b"x" * 9, b"next\n"]


def test_the_beginning_of_a_line_whose_writer_was_killed_is_dropped():
    assert list(wire.read_lines(io.BytesIO(b'{"a": 1}\n{"event": "res'))) == [b'{"a": 1}\n']
