"""What Optuna's own tools show of a study that runs: its command line, load_study, figures, optuna-dashboard's API."""

import contextlib
import io
import json
import sqlite3

import optuna
import optuna.cli
import pytest
from optuna.visualization import (
    plot_intermediate_values,
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
    plot_slice,
    plot_timeline,
)

from search.dashboard.artifacts import dashboard_application
from search.dashboard.frozen_trial import EXACT
from search.dashboard.published_study import show_waiting
from search.dashboard.publisher import Publisher
from search.process_id import ProcessId
from search.records import Rung
from search.space.search_space import Space
from search.storage import entries
from search.storage.entries import Entry
from tests.support.toy_study import toy_space, toy_storage, toy_study

WORKER = ProcessId("host", "another-machine", 1, "2")
THIRD = 1 / 3
CURVES = {  # state -> value by step, of the configurations 0 to 5
    "finished": {2: 1.5, 4: 1.0 + THIRD, 8: 1.0 + THIRD / 2},
    "pruned": {2: 2.0 + THIRD},
    "paused": {2: 1.0 + THIRD},
    "queued": {},
    "failed": {2: 3.5},
    "later": {2: 1.75, 4: 1.5, 8: 1.25},
}


def publish(ledger, space):
    assert Publisher(ledger, space, pytest.fail).publish()


@pytest.fixture
def study(tmp_path):
    """One configuration of each state, published; a study that nobody works on."""
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 8)
    written = []
    for number, (state, curve) in enumerate(CURVES.items()):
        drawn = {"x": 1.0 + number, "kind": "plain" if number % 2 else "fancy"}
        rungs = tuple(Rung(step, value, {"wer_raw": value + THIRD}) for step, value in curve.items())
        failure = "crashed" if state == "failed" else None
        entry_state = "finished" if state == "later" else state
        written.append(Entry(str(number), "sampled", drawn, drawn, entry_state, rungs, None, failure))
    entries.enter(ledger, written)
    publish(ledger, space)
    return ledger, space


def published(ledger):
    return optuna.load_study(study_name="toy", storage=f"sqlite:///{ledger.storage.file}")


def states(ledger):
    return [trial.state.name for trial in published(ledger).trials]


def optuna_command(monkeypatch, capsys, ledger, *words):
    """What `optuna WORDS -f json` prints."""
    storage = f"sqlite:///{ledger.storage.file}"
    monkeypatch.setattr("sys.argv", ["optuna", *words, "--storage", storage, "-f", "json"])
    assert optuna.cli.main() in (0, None)
    return json.loads(capsys.readouterr().out)


def api(ledger, path):
    """What optuna-dashboard's server answers."""
    status = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    body = b"".join(dashboard_application(ledger.storage)(environ, lambda line, headers, *_: status.append(line)))
    assert status == ["200 OK"], (status, body)
    return json.loads(body)


def test_a_paused_or_queued_configuration_is_waiting_and_never_running(study):
    ledger, _ = study
    assert states(ledger) == ["COMPLETE", "PRUNED", "WAITING", "WAITING", "FAIL", "COMPLETE"]
    paused, queued = published(ledger).trials[2:4]
    assert [trial.user_attrs["tmsearch_state"] for trial in (paused, queued)] == ["paused", "queued"]
    assert paused.params == {"x": 3.0, "kind": "fancy"}
    assert paused.intermediate_values == {2: 1.33333}
    assert paused.datetime_start is not None
    assert queued.datetime_start is None


def test_it_runs_while_a_worker_trains_it_and_waits_when_it_is_paused_again(study):
    ledger, space = study
    claim = ledger.claim(WORKER, space.budget.scheduler_config)
    publish(ledger, space)
    assert claim.number == 3
    assert states(ledger)[2:4] == ["WAITING", "RUNNING"]
    assert published(ledger).trials[3].datetime_start is not None
    ledger.commit(claim, 0.5, {}, space.budget.scheduler_config)
    publish(ledger, space)
    assert states(ledger)[2:4] == ["WAITING", "WAITING"]
    assert published(ledger).trials[3].intermediate_values == {2: 0.5}


def test_what_a_killed_worker_left_is_shown_as_waiting(study):
    """At the next look at it by a dashboard or a worker, and without a word to anybody."""
    ledger, space = study
    ledger.claim(WORKER, space.budget.scheduler_config)
    publish(ledger, space)
    show_waiting(ledger)
    assert states(ledger)[3] == "RUNNING", "its lease has not ended"
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET lease_until = 1 WHERE state = 'running'")
    show_waiting(ledger)
    assert states(ledger)[3] == "WAITING"
    show_waiting(ledger)
    assert states(ledger)[3] == "WAITING"


def test_a_waiting_trial_that_somebody_asked_optuna_for_waits_again(study):
    ledger, space = study
    assert published(ledger).ask().number == 2
    assert states(ledger)[2] == "RUNNING"
    publisher = Publisher(ledger, space, pytest.fail)
    publisher.check()
    publisher.publish()
    assert states(ledger)[2] == "WAITING"


def test_values_are_rounded_and_kept_in_full(study):
    ledger, _ = study
    finished, _, paused, *_ = published(ledger).trials
    assert finished.value == 1.16667
    assert finished.intermediate_values == {2: 1.5, 4: 1.33333, 8: 1.16667}
    assert finished.user_attrs["wer_raw"] == 1.5
    assert paused.user_attrs["wer_raw"] == 1.66667
    assert paused.system_attrs[EXACT] == {"values": {"2": 1.0 + THIRD}, "metrics": {"wer_raw": 1.0 + 2 * THIRD}}
    assert finished.system_attrs[EXACT]["values"] == {str(step): value for step, value in CURVES["finished"].items()}


# Optuna's own commands announce themselves as experimental; what they print is what is tested.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_command_line(study, monkeypatch, capsys):
    ledger, _ = study
    (row,) = optuna_command(monkeypatch, capsys, ledger, "studies")
    assert (row["name"], row["n_trials"], row["direction"]) == ("toy", 6, ["MINIMIZE"])
    trials = optuna_command(monkeypatch, capsys, ledger, "trials", "--study-name", "toy")
    assert [trial["state"] for trial in trials] == states(ledger)
    assert trials[0]["value"] == 1.16667
    best = optuna_command(monkeypatch, capsys, ledger, "best-trial", "--study-name", "toy")
    assert best["number"] == 0
    assert best["params"] == {"x": 1.0, "kind": "fancy"}


def traces(figure):
    return figure.to_plotly_json()["data"]


def test_the_figures_show_what_was_trained_in_full_and_nothing_that_waits(study):
    ledger, _ = study
    optuna_study = published(ledger)
    history = traces(plot_optimization_history(optuna_study))
    assert list(history[0]["x"]) == [0, 5]
    assert [round(value, 5) for value in history[0]["y"]] == [1.16667, 1.25]
    curves = {trace["name"]: list(trace["x"]) for trace in traces(plot_intermediate_values(optuna_study))}
    assert curves == {"Trial0": [2, 4, 8], "Trial1": [2], "Trial5": [2, 4, 8]}
    for trace in traces(plot_slice(optuna_study)):
        assert len(trace["x"]) == 2
    lines = [trace for trace in traces(plot_parallel_coordinate(optuna_study)) if "customdata" in trace]
    assert [round(float(trace["customdata"][0][1]), 2) for trace in lines] == [1.17, 1.25]
    assert set(traces(plot_param_importances(optuna_study))[0]["y"]) == {"x", "kind"}
    assert "WAITING" in {trace["name"] for trace in traces(plot_timeline(optuna_study))}


def test_the_dashboards_api(study):
    ledger, _ = study
    (summary,) = api(ledger, "/api/studies")["study_summaries"]
    detail = api(ledger, f"/api/studies/{summary['study_id']}")
    trials = detail["trials"]
    assert [trial["state"].upper() for trial in trials] == states(ledger)
    assert [trial["number"] for trial in detail["best_trials"]] == [0]
    paused = trials[2]
    assert paused["intermediate_values"] == [{"step": 2, "value": 1.33333}]
    shown = {param["name"]: param["param_external_value"] for param in paused["fixed_params"]}
    assert shown == {"x": "3.0", "kind": "fancy"}, "what the page of a waiting trial shows as its parameters"


def test_a_copy_is_read_where_the_dashboard_has_no_server(study, tmp_path):
    """Its page opens the file's bytes in memory, and reads these columns (tslib/storage/src/sqlite.ts)."""
    ledger, _ = study
    query = "SELECT number, state FROM trials ORDER BY number"
    with contextlib.closing(sqlite3.connect(":memory:")) as page:
        page.deserialize(ledger.storage.file.read_bytes())
        with pytest.raises(sqlite3.OperationalError):
            page.execute(query)
    with contextlib.closing(sqlite3.connect(ledger.storage.file)) as database:
        database.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    with contextlib.closing(sqlite3.connect(":memory:")) as page:
        page.deserialize((tmp_path / "copy.db").read_bytes())
        assert page.execute(query).fetchall() == list(enumerate(states(ledger)))


def test_the_space_reads_back(study):
    ledger, space = study
    assert Space.from_json(published(ledger).user_attrs["space"]) == space
