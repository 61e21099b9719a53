"""A search from Python: one small study, stopped in every way, and what it says of itself beside the commands."""

import asyncio
import functools
import json
import os
import signal
import threading

import pandas
import pytest
import yaml

import tmsearch
from tests.support import in_process, toy_whisper
from tests.support.webhook_server import Webhook
from tmsearch.api import study as study_module

MAPPING = {
    "study": "small",
    "data": {"dataset": "corpus", "validation": 4, "test": 2},
    "budget": {"max_steps": 6, "rungs": (2, 4, 6)},
    "train": {"batch_size": 2, "model": "./toy", "window_share": 0, "clip_times": 0},
    "search": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "normalize_audio": [True, False]},
    "start": [{"learning_rate": 1e-3}],
}
TRIALS = 2


class Calls:
    """Callbacks that note what they were called with, each in turn, and which thread called."""

    def __init__(self, at_rung=None):
        self.notes = []
        self.threads = set()
        self._at_rung = at_rung

    def rung(self, rung):
        self.threads.add(threading.current_thread())
        self.notes.append(("rung", rung.number, rung.step, rung.value))
        if self._at_rung is not None:
            self._at_rung()

    def trial(self, trial):
        self.notes.append(("trial", trial.number, trial.state, trial.steps))

    def end(self, status):
        self.notes.append(("end", dict(status.states)))

    def search(self, **more):
        return tmsearch.search(
            MAPPING, trials=TRIALS, on_rung=self.rung, on_trial=self.trial, on_end=self.end, progress=False, **more
        )


def raise_error():
    raise LookupError("of the callback")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A study: ended by a callback's error, then by a signal, then finished in a thread beside an event loop."""
    folder = tmp_path_factory.mktemp("searched")
    toy_whisper.whisper_folder(folder / "toy")
    toy_whisper.corpus_folder(folder / "corpus")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    stopped, interrupted, finished = Calls(raise_error), Calls(lambda: os.kill(os.getpid(), signal.SIGINT)), Calls()
    with in_process.in_folder(folder), monkeypatch.context() as environment, Webhook() as hook:
        environment.setenv("TMSEARCH_NOTIFY", f"{hook.url}/200")
        with pytest.raises(LookupError, match="of the callback"):
            stopped.search()
        with pytest.raises(tmsearch.StudyInterrupted, match="small: interrupted, everything is kept") as interruption:
            interrupted.search()
        assert interruption.value.study.status().judged
        environment.delenv("TMSEARCH_NOTIFY")
        study = asyncio.run(_in_thread(functools.partial(finished.search, notify=f"{hook.url}/404", price=36.0)))
        yield folder, study, (stopped, interrupted, finished), hook.texts
    monkeypatch.undo()


async def _in_thread(call):
    """As a cell of a notebook that has its loop."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


def test_a_notice_is_sent_however_a_search_ends(searched):
    texts = searched[3]
    assert [text.splitlines()[0] for text in texts] == [
        "study small: failed: of the callback",
        "study small: interrupted, everything is kept",
        "study small: has ended",
    ]
    assert ["dollars at 36 an hour" in text for text in texts] == [False, False, True]
    assert "/404" not in "".join(texts)


def test_a_callbacks_error_and_a_signal_end_the_work_after_a_rung_and_lose_nothing(searched):
    _, study, (stopped, interrupted, finished), _ = searched
    assert [note[0] for note in stopped.notes] == ["rung"]  # nothing is called after its error
    assert [note[0] for note in interrupted.notes] == ["rung", "end"]
    rungs = [note for calls in (stopped, interrupted, finished) for note in calls.notes if note[0] == "rung"]
    assert len(rungs) == len({rung[:3] for rung in rungs})  # no step is evaluated twice
    curves = study.trials.set_index("number")
    for number, steps in ((trial.number, trial.curve) for trial in [study.best]):
        assert [(step, value) for _, told, step, value in rungs if told == number] == list(steps.items())
        assert curves.loc[number, "steps"] == max(steps)


def test_callbacks_come_in_order_in_the_callers_thread(searched):
    _, study, (stopped, _, finished), _ = searched
    assert stopped.threads == {threading.main_thread()}
    assert threading.main_thread() not in finished.threads
    assert finished.notes[-1] == ("end", dict(study.status().states))
    ended = [note[1] for note in finished.notes if note[0] == "trial"]
    assert sorted(ended) == list(range(TRIALS))
    for number in ended:
        positions = [index for index, note in enumerate(finished.notes) if note[:2] == ("rung", number)]
        assert not positions or max(positions) < finished.notes.index(
            next(note for note in finished.notes if note[:2] == ("trial", number))
        )


def test_the_figures_are_those_of_the_commands(searched):
    folder, study, *_ = searched
    said = json.loads(in_process.tmsearch(folder, "status", "small", "--json").stdout)
    status = study.status()
    assert (status.study, status.storage) == (said["study"], said["storage"])
    assert status.seconds_spent == said["seconds_spent"]
    table = study.trials
    assert isinstance(table, pandas.DataFrame)
    for row, told in zip(table.to_dict("records"), said["configurations"], strict=True):
        for name in ("number", "state", "steps", "wer", "wer_raw", "cer", "train_seconds", "eval_seconds", "reason"):
            assert row[name] == told[name], name
        assert [row["wer_low"], row["wer_high"]] == told["wer_interval"]
        assert row["learning_rate"] == told["params"]["learning_rate"]
    priced = json.loads(in_process.tmsearch(folder, "status", "small", "--json", "--price", "36").stdout)
    at_price = study.status(price=36)
    assert at_price.dollars_spent == priced["dollars_spent"] == pytest.approx(status.seconds_spent / 100)
    assert (at_price.seconds_left, at_price.dollars_left) == (priced["seconds_left"], priced["dollars_left"])
    assert "dollars at 36 an hour" in str(at_price)
    assert status.dollars_spent is None
    best = json.loads(in_process.tmsearch(folder, "best", "small", "--json").stdout)
    assert (study.best.number, study.best.wer) == (best["number"], best["wer"])
    assert status.best == study.best
    printed = in_process.tmsearch(folder, "status", "small", COLUMNS="110").stdout
    assert str(status) == printed.rstrip()
    assert "<pre" in study._repr_html_()


def test_the_report_and_the_recipe_are_those_of_the_commands(searched):
    folder, study, *_ = searched
    assert study.report().read_bytes().startswith(b"<!doctype html>")
    assert study.report("again.html").name == "again.html"
    exported = study.export("best.yaml").read_text()
    assert exported == in_process.tmsearch(folder, "export", "small").stdout
    with pytest.raises(tmsearch.InputError, match="small: trial 7: there are configurations 0 to 1"):
        study.export("no.yaml", trial=7)
    with pytest.raises(tmsearch.InputError, match="exists and is not a page of tmsearch"):
        study.report("best.yaml")


def test_a_plan_is_that_of_a_dry_run(searched):
    folder, *_ = searched
    (folder / "small.yaml").write_text(yaml.safe_dump({**MAPPING, "budget": {"max_steps": 6, "rungs": [2, 4, 6]}}))
    plan = tmsearch.plan("small.yaml", trials=4, gpu=80, price=36)
    command = ("run", "--space", "small.yaml", "--trials", "4", "--dry-run", "--gpu", "80", "--price", "36")
    assert str(plan).splitlines()[:-1] == in_process.tmsearch(folder, *command).stdout.splitlines()[:-1]
    assert str(plan).endswith("nothing was written; `tmsearch.search` continues the study")
    assert (plan.study, plan.exists) == ("small", True)
    assert plan.dollars == pytest.approx(plan.seconds / 100)
    assert plan.trainings == pytest.approx(4 * 2 / 6 + 2 * 4 / 6), "all to the first rung, two to the end"
    assert "<pre" in plan._repr_html_()
    with pytest.raises(tmsearch.InputError, match="small was started with another space"):
        tmsearch.plan(MAPPING, set=["train.batch_size=4"])


def test_without_pandas_the_trials_are_records(searched, monkeypatch):
    _, study, *_ = searched
    rows = study.trials.to_dict("records")
    monkeypatch.setattr(study_module.importlib.util, "find_spec", lambda name: None)
    assert [row["wer"] for row in study.trials] == [row["wer"] for row in rows]


def test_a_study_is_found_again_and_has_nothing_left_to_do(searched, capsys):
    _, study, *_ = searched
    assert tmsearch.studies() == ["small"]
    again = tmsearch.open_study("small")
    assert again.resume().best == study.best  # shows the command's lines
    assert "2 configurations: " in capsys.readouterr().out
    with pytest.raises(tmsearch.InputError, match="other: no such study"):
        tmsearch.open_study("other")
    with pytest.raises(tmsearch.InputError, match=r"small: no such file, but a study; .*open_study\('small'\)"):
        tmsearch.search("small")


def test_the_curves_are_a_plotly_figure_and_a_picture(searched):
    _, study, *_ = searched
    figure = study.curves()
    assert len(figure.data) == TRIALS
    best = next(trace for trace in figure.data if trace.name == f"best: trial {study.best.number}")
    assert dict(zip(best.x, best.y, strict=True)) == study.best.curve
    bundle = figure._repr_mimebundle_()
    assert bundle["text/html"].startswith("<svg")
    assert len(json.dumps(bundle)) < 20_000  # without plotly's script of megabytes


def test_a_confirmations_notice_is_its_verdict(searched, monkeypatch, capsys):
    _, study, *_ = searched
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(tmsearch.InputError, match=r"^notify: neither"):
        study.confirm(notify="mailto:me")
    with Webhook() as hook:
        confirmation = study.confirm(top=1, seeds=2, notify=f"{hook.url}/200", progress=False)
    (text,) = hook.texts
    assert text.splitlines()[0] == "study small-confirm: has ended"
    assert text.splitlines()[1] in str(confirmation)
    assert capsys.readouterr() == ("", "")
