"""What a person sees of studies in a browser: notes, pictures and players in place, hostile text as text."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from wsgiref.simple_server import make_server

import optuna
import pytest

from search.dashboard.artifacts import dashboard_application
from search.dashboard.publisher import Publisher
from search.errors import UserError
from search.space.search_space import Space
from tests.support.browser import chromium, console_messages
from tests.support.study_builder import HOSTILE_SCRIPT, hostile_study
from tmsearch.cli.commands.serve import _QuietHandler, _Server
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.cli.services.dashboard_site import Site, is_local
from tmsearch.cli.services.report import study_report

HOSTILE = f"<img src=x onerror={HOSTILE_SCRIPT}>"  # a study's name, which no command takes; a database may have it


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A study that is over, with a hostile name, and one that runs, each in a storage of its own."""
    ledgers = {}
    for kind, name in (("over", HOSTILE), ("runs", "runs")):
        ledger = hostile_study(tmp_path_factory.mktemp("served"), over=kind == "over", name=name)
        Publisher(
            ledger, Space.from_json(dict(ledger.record().space)), pytest.fail, StudyAnnotator(ledger, print)
        ).publish()
        ledgers[kind] = ledger
    return ledgers


@contextlib.contextmanager
def served(ledger, page=lambda storage, name: f"<p>report of {name}".encode(), local=True):
    """The address of a dashboard."""
    site = Site(ledger.storage, dashboard_application(ledger.storage), page, local=local)
    with make_server("127.0.0.1", 0, site, _Server, _QuietHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def trial_of(ledger, number):
    study = optuna.load_study(study_name=ledger.study, storage=ledger.storage.optuna)
    return next(trial.number for trial in study.trials if trial.user_attrs["configuration"] == number)


def wait(browser, script, seconds=30):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: browser.execute_script(script))


@pytest.mark.parametrize("kind", ["over", "runs"])
def test_in_a_browser(published, kind, tmp_path):
    ledger = published[kind]
    with served(ledger) as address, chromium(tmp_path / "profile", 1280, 1800) as browser:
        browser.get(f"{address}/dashboard/studies/1/trials?numbers={trial_of(ledger, 1)}")
        wait(
            browser,
            "return [...document.querySelectorAll('audio')].filter(node => node.readyState > 0).length === 3",
        )
        wait(
            browser,
            "return [...document.querySelectorAll('img')].filter(node => node.naturalWidth > 300).length === 4",
        )
        seconds = browser.execute_script("return [...document.querySelectorAll('audio')].map(node => node.duration)")
        assert all(0.9 < duration < 4 for duration in seconds), seconds
        shown = browser.find_element("tag name", "body").text
        assert "WER 0.097" in shown
        assert "better" in shown
        assert f"reference: <script>{HOSTILE_SCRIPT}</script><img src=x onerror={HOSTILE_SCRIPT}>" in shown
        assert "worst-8-clips.csv" in shown
        browser.find_element("css selector", "[aria-label='show artifact table']").click()
        wait(browser, "return document.body.innerText.includes('=HYPERLINK')")
        browser.get(f"{address}/dashboard/studies/1/note")
        link = wait(browser, "return document.querySelector('a[href^=\"/reports/\"]')")
        assert browser.title != "owned"
        assert console_messages(browser) == []
        link.click()
        wait(browser, "return document.body.innerText.startsWith('report of ')")


def test_a_running_study_shows_what_has_ended(published):
    study = optuna.load_study(study_name="runs", storage=published["runs"].storage.optuna)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "PRUNED", "WAITING"]


def get(address, path, host=None, method="GET", **headers):
    """(status, headers, body)"""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request(method, path, headers={**({"Host": host} if host else {}), **headers})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_reports(published):
    built = []

    def page(storage, name):
        built.append(name)
        return f"<p>report {len(built)} of {name} \u05e9".encode()

    with served(published["runs"], page) as address:
        status, headers, body = get(address, "/reports/runs")
        assert (status, body) == (200, "<p>report 1 of runs \u05e9")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert get(address, "/reports/runs")[2] == body, "built once for one state of the study"
        published["runs"].add_fact("new", 1)
        assert get(address, "/reports/runs")[2] == "<p>report 2 of runs \u05e9"
        status, _, body = get(address, "/reports/%3Cscript%3E")
        assert (status, "there is no study &lt;script&gt;" in body) == (404, True)
        assert built == ["runs", "runs"]


def test_one_that_cannot_be_made_is_said_in_one_line(published):
    def page(storage, name):
        raise UserError("the data are <b>gone</b>")

    with served(published["runs"], page) as address:
        status, _, body = get(address, "/reports/runs")
    assert (status, "the data are &lt;b&gt;gone&lt;/b&gt;" in body) == (503, True)


def test_the_report_itself(published):
    with served(published["runs"], study_report.page) as address:
        status, _, body = get(address, "/reports/runs")
    assert status == 200
    assert body.startswith("<!doctype html>")
    assert "Trial 1 at step 80" in body


def test_only_its_own_address_is_answered(published):
    with served(published["over"]) as address:
        port = address.rpartition(":")[2]
        assert get(address, "/api/studies")[0] == 200
        assert get(address, "/api/studies", host="localhost:9999")[0] == 200, "through a tunnel"
        assert get(address, "/api/studies", host=f"evil.example:{port}")[0] == 403, "DNS rebinding"
        origin = {"Origin": "http://evil.example"}
        assert get(address, "/api/studies/1", method="DELETE", **origin)[0] == 403
        assert get(address, "/api/studies", **{"Origin": address})[0] == 200
    with served(published["over"], local=False) as address:
        assert get(address, "/api/studies", host="box.lan")[0] == 200
        assert get(address, "/api/studies/1", host="box.lan", method="DELETE", **origin)[0] == 403
    assert [is_local(host) for host in ("localhost", "::1", "127.1.2.3", "0.0.0.0", "box")] == [True] * 3 + [False] * 2


def test_a_browser_that_says_nothing_blocks_nobody(published):
    with served(published["over"]) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))):
            assert json.loads(get(address, "/api/studies")[2])["study_summaries"]


def test_a_file_of_another_machine_is_not_found(published, capfd):
    with served(published["over"]) as address:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/artifacts/1/1/abc")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/artifacts/1/1/{'a' * 3000}")
    assert capfd.readouterr().err == ""
