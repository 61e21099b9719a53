"""The real clients, where they are installed, on this machine alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.tmsearch.tracking.test_mirror import mirrored, trial  # noqa: F401
from tmsearch.tracking import choice
from tmsearch.tracking.__main__ import make_tracker


@pytest.fixture
def client(request, tmp_path, monkeypatch):
    name = request.param
    if not choice.is_installed(name):
        pytest.skip(f"the extra [{choice.KINDS[name].extra}] is not installed")
    for variable, value in choice.environment(name, tmp_path, {}).items():
        monkeypatch.setenv(variable, value)
    return name


def passes(name, folder, trial):  # noqa: F811
    """Mirrors a trial with a result, with a lost memory, with a second result, and with its end; its model last."""
    trial_folder, run = trial
    (trial_folder / "config.json").write_text("{}")
    model = {"config.json": str(trial_folder / "config.json")}
    first = dataclasses.replace(run, rungs=run.rungs[:1])
    pruned = dataclasses.replace(run, ended=True, facts={"state": "pruned", "study": "study"}, artifact=model)
    tracker = make_tracker(name)
    for state in (first, first, run, pruned):
        assert mirrored(tracker, folder, state, name)["event"] == "mirrored"
        (folder / f"{name}.json").unlink()  # as if killed before it was remembered
    return run


@pytest.mark.parametrize("client", ["trackio"], indirect=True)
def test_trackio(client, tmp_path, trial):  # noqa: F811
    run = passes(client, tmp_path, trial)
    from trackio.sqlite_storage import SQLiteStorage

    logs = [log for log in SQLiteStorage.get_logs(run.project, run.name) if "loss" in log]
    assert [log["step"] for log in logs] == list(range(1, 9))
    assert (logs[7]["wer"], logs[7]["loss"]) == (0.4, 0.125)
    row = next(row for row in logs[7]["worst_clips"]["_value"] if row["clip"] == "a.wav")
    assert (tmp_path / "trackers" / "trackio" / "media" / row["sound"]["file_path"]).is_file()
    assert SQLiteStorage.get_run_config(run.project, run.name)["state"] == "pruned"


@pytest.mark.parametrize("client", ["trackio"], indirect=True)
def test_a_disk_that_takes_nothing_is_a_failure(client, tmp_path, trial, monkeypatch):  # noqa: F811
    """Trackio warns of it, and goes on: what it lost would be remembered as mirrored."""
    from trackio.sqlite_storage import SQLiteStorage

    def refuse(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SQLiteStorage, "bulk_log", refuse)
    answer = mirrored(make_tracker(client), tmp_path, trial[1], client)
    assert answer["event"] == "failure"
    assert "No space left on device" in answer["reason"]


def wandb_records(content):
    """The records of an offline run's file, which is LevelDB's log: blocks of 32 KiB behind a header of 7 bytes."""
    position, parts = 7, []
    while position + 7 <= len(content):
        if position % 32768 > 32768 - 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield b"".join(parts)
            parts = []


@pytest.mark.parametrize("client", ["wandb"], indirect=True)
def test_wandb_offline(client, tmp_path, trial):  # noqa: F811
    run = passes(client, tmp_path, trial)
    from wandb.proto import wandb_internal_pb2

    steps = []
    for file in sorted(Path(tmp_path, "trackers", "wandb", "wandb").glob("offline-run-*/*.wandb")):
        for content in wandb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            values = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "loss" in values:
                steps.append(record.history.step.num)
                assert ("wer" in values) == (steps[-1] in (4, 8))
    assert steps == list(range(1, 9))
    assert run.id in str(file)


@pytest.mark.parametrize("client", ["mlflow"], indirect=True)
def test_mlflow(client, tmp_path, trial):  # noqa: F811
    run = passes(client, tmp_path, trial)
    from mlflow import MlflowClient

    store = MlflowClient()
    (mlflow_run,) = store.search_runs([store.get_experiment_by_name(run.project).experiment_id])
    run_id = mlflow_run.info.run_id
    assert [point.step for point in store.get_metric_history(run_id, "loss")] == list(range(1, 9))
    assert [point.value for point in store.get_metric_history(run_id, "wer")] == [0.5, 0.4]
    assert mlflow_run.data.params == {"learning_rate": "0.0001", "model": "nano", "spec": "True"}
    assert (mlflow_run.data.tags["state"], mlflow_run.info.status) == ("pruned", "FINISHED")
    assert [file.path for file in store.list_artifacts(run_id, "model")] == ["model/config.json"]
    page = Path(store.download_artifacts(run_id, "worst_clips/step-000008.html")).read_text()
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert page.count("<audio") == 1
    assert json.dumps(mlflow_run.data.metrics)
