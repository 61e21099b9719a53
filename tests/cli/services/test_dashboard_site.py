"""Who may ask the dashboard, and what its pages allow."""

import pytest

from tests.support.toy_study import toy_space, toy_storage, toy_study
from tmsearch.cli.services import dashboard_site
from tmsearch.cli.services.dashboard_site import Site


@pytest.fixture
def site(tmp_path):
    storage = toy_storage(tmp_path)
    toy_study(storage, toy_space(tmp_path), 1)

    def dashboard(environ, start_response):
        start_response("200 OK", [])
        return [b"dashboard"]

    return Site(storage, dashboard, lambda storage, name: "page", local=True)


def ask(site, path="/", **environ):
    answers = []
    site({"PATH_INFO": path, **environ}, lambda status, headers, *more: answers.append((status, dict(headers))))
    return answers[0]


@pytest.mark.parametrize("host", ["[::1", "[", "]", "[v1.x]", "", "evil.example", "127.0.0.1:x:["])
def test_a_host_that_is_not_this_one_is_refused_and_breaks_nothing(site, host):
    assert ask(site, HTTP_HOST=host)[0] == "403 Forbidden"


def test_an_origin_that_cannot_be_read_is_refused(site):
    assert ask(site, HTTP_HOST="localhost:1", HTTP_ORIGIN="http://[::1")[0] == "403 Forbidden"
    assert ask(site, HTTP_HOST="localhost:1", HTTP_ORIGIN="http://localhost:1")[0] == "200 OK"


@pytest.mark.parametrize("path", ["/", "/artifacts/1/2/\0", "/artifacts/1/2/" + "x" * 500, "/favicon.ico"])
def test_no_foreign_page_may_frame_any_answer(site, path):
    status, headers = ask(site, path, HTTP_HOST="[::1]:80")
    assert not status.startswith("5")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"


def test_the_list_of_trials_comes_without_the_pruned_ones_unless_it_is_asked_for(site):
    status, headers = ask(site, "/dashboard/studies/1/trials", HTTP_HOST="localhost:1", QUERY_STRING="")
    assert (status, headers["Location"]) == ("302 Found", "/dashboard/studies/1/trials?exclude=Pruned")
    for path, query in (("/dashboard/studies/1/trials", "numbers=3"), ("/dashboard/studies/1", "")):
        assert ask(site, path, HTTP_HOST="localhost:1", QUERY_STRING=query)[0] == "200 OK"


def test_what_a_killed_worker_left_is_looked_for_once_a_minute(site, monkeypatch):
    shown, now = [], [100.0]
    monkeypatch.setattr(dashboard_site, "show_waiting", lambda ledger: shown.append(ledger.study))
    monkeypatch.setattr(dashboard_site.time, "monotonic", lambda: now[0])
    for path in ("/dashboard", "/api/studies", "/api/studies/1"):
        ask(site, path, HTTP_HOST="localhost:1")
    assert shown == ["toy"]
    now[0] += 61.0
    ask(site, "/api/studies/1", HTTP_HOST="localhost:1")
    assert shown == ["toy", "toy"]
