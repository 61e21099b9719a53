"""Where notices go, and that a secret URL is in nothing that is shown or inherited."""

import os

import pytest

from tmsearch.errors import InputError
from tmsearch.notices import channel as module
from tmsearch.notices.channel import channel
from tmsearch.notices.target import is_target

URL = "https://hooks.example/services/T0/B0/secret"


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch):
    monkeypatch.delenv("TMSEARCH_NOTIFY", raising=False)


@pytest.mark.parametrize("text", [URL, "http://127.0.0.1:8080/x?tpl=1", "desktop", "https://[::1]/x"])
def test_targets(text):
    assert is_target(text)


@pytest.mark.parametrize("text", ["", "mail", "ftp://host/x", "https://", "https:///x", "https://[x", "https://h/a b"])
def test_no_targets(text):
    assert not is_target(text)


def test_the_option_counts_before_the_variable_which_no_child_inherits(monkeypatch):
    assert channel(None) is None
    sent = []
    monkeypatch.setattr(module.webhook, "post", lambda url, text: sent.append((url, text)))
    monkeypatch.setenv("TMSEARCH_NOTIFY", URL)
    assert channel(None).send("text") is None
    assert "TMSEARCH_NOTIFY" not in os.environ
    monkeypatch.setenv("TMSEARCH_NOTIFY", URL)
    channel("https://other.example/").send("more")
    assert "TMSEARCH_NOTIFY" not in os.environ
    assert sent == [(URL, "text"), ("https://other.example/", "more")]


def test_no_text_about_it_has_the_url(monkeypatch):
    assert "secret" not in repr(channel(URL))
    monkeypatch.setenv("TMSEARCH_NOTIFY", "htps://hooks.example/secret")
    with pytest.raises(InputError, match="TMSEARCH_NOTIFY") as error:
        channel(None)
    assert "secret" not in str(error.value)


def test_a_desktop_without_the_program_is_known_before_the_end(monkeypatch):
    monkeypatch.setattr(module.desktop, "is_missing", lambda: True)
    assert "libnotify-bin" in channel("desktop").problem
    assert channel(URL).problem is None
    monkeypatch.setattr(module.desktop, "show", lambda text: f"not shown: {text}")
    assert channel("desktop").send("x") == "not shown: x"
