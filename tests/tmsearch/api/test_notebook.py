"""A study at work in a notebook, as far as IPython's two functions tell: page and curves, drawn over themselves."""

import json
import sys
import types

import pytest

from search.execution.messages import ProgressEvent
from search.study import summarize
from tests.support.study_builder import claimed_study
from tmsearch.api.view import notebook


class Handle:
    """What `display` returns: it remembers what it showed last."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.updates = 0

    def update(self, bundle, raw):
        assert raw
        self.bundle = bundle
        self.updates += 1


@pytest.fixture
def shown(monkeypatch):
    """What a front end shows, of an IPython that runs in a kernel."""
    handles = []

    def display(bundle, raw, display_id):
        assert raw
        assert display_id
        handles.append(Handle(bundle))
        return handles[-1]

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return handles


def test_a_kernel_is_told_from_a_script_and_a_terminal(shown, monkeypatch):
    assert notebook.is_running()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not notebook.is_running()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.is_running()


@pytest.fixture
def drawn(tmp_path, shown):
    """The display of a study in which one trial is at work, and the study's ledger."""
    ledger, _ = claimed_study(tmp_path, 4, results=3)
    return notebook.display_of(ledger.storage)(summarize(ledger), 1, 0.0, None), ledger


def test_the_page_and_the_curves_are_drawn_over_themselves(drawn, shown):
    display, ledger = drawn
    with display:
        page, curves = shown
        number = next(trial.number for trial in ledger.history() if trial.state == "running")
        display.progress(number, ProgressEvent(step=17, loss=1.0))  # too soon to be drawn by itself
        assert page.updates == 0
        display.rung(1, 100, 0.5, {}, "paused")
        assert (page.updates, curves.updates) == (1, 1)
        running = next(line for line in page.bundle["text/plain"].splitlines() if f" {number} running" in line)
        assert " 17 " in running
    assert len(shown) == 2
    assert page.bundle["text/html"].startswith("<pre")
    assert curves.bundle["text/html"].startswith("<svg")
    assert json.loads(json.dumps(curves.bundle["application/vnd.plotly.v1+json"]))["data"]


def test_a_price_is_on_the_page(drawn, shown):
    with drawn[0]:
        assert "dollars" not in shown[0].bundle["text/plain"]
    summary = summarize(drawn[1])
    with notebook.display_of(drawn[1].storage)(summary, 1, 0.0, 36.0):
        assert "dollars at 36 an hour" in shown[2].bundle["text/plain"]


def test_what_is_wrong_with_the_drawing_does_not_end_the_search(drawn, shown, capsys):
    display, _ = drawn
    with display:
        shown[0].update = None  # the front end is gone
        display.failed(0, "diverged", "the loss is not finite")
        display.rung(1, 100, 0.5, {}, "paused")
    assert capsys.readouterr().out.count("no live page any more: TypeError") == 1
