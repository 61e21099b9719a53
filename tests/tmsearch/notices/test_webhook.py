"""A webhook on the loopback that takes, refuses, stalls, sends elsewhere or is away."""

import time

import pytest

from tests.support.hub_server import refusing_url
from tests.support.webhook_server import Webhook
from tmsearch.notices import webhook
from tmsearch.notices.webhook import post


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Webhook() as hook:
        yield hook


def test_the_text_arrives_as_json(hook):
    assert post(f"{hook.url}/200", 'best: "tiny"\nWER .3 é') is None
    ((path, content_type, text),) = hook.taken
    assert (path.rpartition("/")[2], content_type) == ("200", "application/json")
    assert text == 'best: "tiny"\nWER .3 é'


@pytest.mark.parametrize("status", [404, 500, 302])
def test_what_is_refused_or_sent_on_is_said_and_sent_nowhere_else(hook, status):
    assert post(f"{hook.url}/{status}", "text") == f"it was answered with {status}"
    assert hook.texts == ["text"]


def test_a_hook_that_stalls_is_not_waited_for(hook, monkeypatch):
    monkeypatch.setattr(webhook, "SECONDS", 0.2)
    started = time.monotonic()
    assert post(f"{hook.url}/stall", "text") == "no answer within 0.2 s"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "url",
    [refusing_url(), "http://127.0.0.1:99999/x", "http://nowhere.invalid/hook", "http://[::1"],
    ids=["refusing", "no port", "no host", "no URL"],
)
def test_no_reason_quotes_the_url(url, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    problem = post(url, "text")
    assert problem
    assert "127" not in problem
    assert "nowhere" not in problem
