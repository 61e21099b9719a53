"""Whether a hub answers, with a token and without, through the real client."""

import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.support.hub_server import Handler, Hub, refusing_url
from tmsearch import hub as hub_module
from tmsearch.machine import hub_access

TOKEN = "hf_aVerySecretToken"


class WhoAmI(Handler):
    """Answers only the question whose token it is."""

    def _answer(self):
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.requests.append(self.path)
        if self.hub.stalls or self.hub.fails:
            super()._answer()
        elif sent and sent == self.hub.token:
            self._json({"name": "somebody"})
        else:
            self._fail(401, None, "Invalid username or password.")


class WhoAmIHub(Hub):
    handler = WhoAmI


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Asks the hub at a URL, with a token or without."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    huggingface_hub.close_session()  # its client has the proxies that were set when it was made

    def ask(url, token=""):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", token)
        return hub_access.ask()

    yield ask
    huggingface_hub.close_session()


def test_a_token_is_taken_or_refused_or_not_there(ask):
    with WhoAmIHub({}, token=TOKEN) as hub:
        assert [(answer.has_token, answer.status) for answer in (ask(hub.url, TOKEN), ask(hub.url, "hf_old"))] == [
            (True, 200),
            (True, 401),
        ]
        answer = ask(hub.url)
        assert (answer.has_token, answer.status, answer.failure) == (False, 401, None)
        assert 0 < answer.seconds < 5
        assert hub.requests == ["/api/whoami-v2"] * 3


def test_a_hub_that_is_away_says_why_without_the_token(ask, monkeypatch):
    answer = ask(refusing_url(), TOKEN)
    assert answer.status is None
    assert "cannot be reached" in answer.failure
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in ask(refusing_url(), TOKEN).failure


def test_a_hub_that_stalls_is_not_waited_for(ask, monkeypatch):
    monkeypatch.setattr(hub_access, "LOOKUP_TIMEOUT", 0.3)
    with WhoAmIHub({}, stalls=True) as hub:
        started = time.monotonic()
        assert "did not answer" in ask(hub.url).failure
    assert time.monotonic() - started < hub_module.REQUEST_TIMEOUT
