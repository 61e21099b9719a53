"""Datasets on a hub, through the real client: what loads, and the one line that says why not, within seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from tests.support.audio_files import struct_table, tone_folder
from tests.support.command import tmsearch
from tests.support.hub_server import Hub, hub_environment, refusing_url

ROOT = Path(__file__).parents[2]
TOKEN = "hf_aVerySecretToken"

CHILD = """
import json, sys, time
from tmsearch.data.corpus import load
from tmsearch.config import DataConfig
from tmsearch.errors import InputError
for settings in json.loads(sys.argv[1]):
    begun = time.monotonic()
    try:
        corpus = load(DataConfig(**settings))
        answer = {"names": [clip.name for clip in corpus.clips], "notes": corpus.notes, "print": corpus.fingerprint}
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps({**answer, "seconds": time.monotonic() - begun}))
"""


def ask(environment, *configs):
    """What a process of its own answers to each config; it must print nothing else, and never the token."""
    command = [sys.executable, "-c", CHILD, json.dumps([{"max_dropped": 0.0, **config} for config in configs])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        command, env={**inherited, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert TOKEN not in done.stdout
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        assert "\n" not in answer.get("error", "")
    return answers if len(answers) > 1 else answers[0]


def test_public_dataset_and_then_without_network(tmp_path):
    with Hub({("dataset", "me/throat"): {"main": tone_folder(tmp_path / "repo", "a", "b")}}) as hub:
        answer = ask(hub.environment(tmp_path / "home"), {"dataset": "me/throat"})
        environment = hub.environment(tmp_path / "home")
    assert answer["names"] == ["a.wav", "b.wav"]
    assert hub.commit("dataset", "me/throat", "main")[:12] in answer["notes"][0]
    again = ask(environment, {"dataset": "me/throat"})  # the hub is gone
    assert again["print"] == answer["print"]
    with Hub({}, fails=503) as broken:
        third = ask(broken.environment(tmp_path / "home"), {"dataset": "me/throat"})
    assert third["print"] == answer["print"]


def test_a_partial_download_is_not_taken_for_the_dataset(tmp_path):
    with Hub({("dataset", "me/throat"): {"main": tone_folder(tmp_path / "repo", "a", "b")}}) as hub:
        environment = hub.environment(tmp_path / "home")
        ask(environment, {"dataset": "me/throat"})
    snapshot = next((tmp_path / "home/hub/datasets--me--throat/snapshots").iterdir())
    (snapshot / "b.wav").unlink()
    assert "cannot be reached" in ask(environment, {"dataset": "me/throat"})["error"]


def test_private_dataset_demands_the_token(tmp_path):
    repos = {("dataset", "me/secret"): {"main": tone_folder(tmp_path / "repo", "a", "b")}}
    settings = {"dataset": "me/secret"}
    with Hub(repos, private={"me/secret"}, token=TOKEN) as hub:
        without = ask(hub.environment(tmp_path / "home1"), settings)["error"]
        wrong = ask(hub.environment(tmp_path / "home2", token="hf_wrongToken"), settings)["error"]
        right = ask(hub.environment(tmp_path / "home3", token=TOKEN), settings)
    assert "me/secret" in without
    assert "HF_TOKEN is not set" in without
    assert "does not accept HF_TOKEN" in wrong
    assert "hf_wrongToken" not in wrong
    assert right["names"] == ["a.wav", "b.wav"]


def test_gated_dataset_says_to_ask_for_access(tmp_path):
    repos = {("dataset", "me/gated"): {"main": tone_folder(tmp_path / "repo", "a", "b")}}
    with Hub(repos, gated={"me/gated"}) as hub:
        answer = ask(hub.environment(tmp_path / "home"), {"dataset": "me/gated"})
    assert "me/gated: gated" in answer["error"]


def test_revisions_are_pinned(tmp_path):
    repos = {
        ("dataset", "me/throat"): {
            "main": tone_folder(tmp_path / "new", "a", "b", "c"),
            "v1": tone_folder(tmp_path / "old", "a", "b"),
        }
    }
    commit = Hub.commit("dataset", "me/throat", "v1")
    with Hub(repos) as hub:
        environment = hub.environment(tmp_path / "home")
        datasets = [{"dataset": "me/throat", "revision": revision} for revision in (None, "v1", commit, "v9")]
        newest, tagged, by_commit, unknown = ask(environment, *datasets)
        before = len(hub.requests)
        ask(environment, datasets[2])
        assert len(hub.requests) == before, "a commit that the cache holds needs no network"
    assert len(newest["names"]) == 3
    assert tagged["names"] == by_commit["names"] == ["a.wav", "b.wav"]
    assert "no revision v9" in unknown["error"]
    assert "data.revision" in unknown["error"]


def test_unknown_names(tmp_path):
    with Hub({}, token=TOKEN) as hub:
        environment = hub.environment(tmp_path / "home", token=TOKEN)
        names = ("me/nothing", "no spaces allowed", "./nowhere", "a/b/c", "nothing.parquet", "", "x" * 300)
        unknown, no_name, folder, deep, file, empty, long = ask(environment, *({"dataset": name} for name in names))
    assert "me/nothing" in unknown["error"]
    assert "data.dataset" in unknown["error"]
    assert "neither a folder here nor" in no_name["error"]
    assert "no such file or folder" in folder["error"]
    assert "no such file or folder" in deep["error"]
    assert "nothing.parquet" in file["error"]
    assert "is empty" in empty["error"]
    assert "neither a folder here nor" in long["error"]


def test_a_hub_that_refuses_connections(tmp_path):
    answer = ask(hub_environment(refusing_url(), tmp_path, token=TOKEN), {"dataset": "me/throat"})
    assert "cannot be reached" in answer["error"]
    assert answer["seconds"] < 5


def test_a_hub_that_never_answers(tmp_path):
    with Hub({}, stalls=True) as hub:
        answer = ask(hub.environment(tmp_path), {"dataset": "me/throat"})
    assert "did not answer" in answer["error"]
    assert answer["seconds"] < 10


def test_offline_mode_and_a_server_out_of_order(tmp_path):
    with Hub({}, fails=500) as hub:
        assert "answered 500" in ask(hub.environment(tmp_path), {"dataset": "me/throat"})["error"]
        offline = {**hub.environment(tmp_path), "HF_HUB_OFFLINE": "1"}
        assert "HF_HUB_OFFLINE" in ask(offline, {"dataset": "me/throat"})["error"]


def test_parquet_on_the_hub_with_two_splits(tmp_path):
    data = tmp_path / "repo/data"
    data.mkdir(parents=True)
    pq.write_table(struct_table(["a.wav", "b.wav"]), data / "train-00000-of-00001.parquet")
    pq.write_table(struct_table(["a.wav"], ["another"]), data / "test-00000-of-00001.parquet")
    (tmp_path / "repo/README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\n---\n# Throat\n"
    )
    with Hub({("dataset", "me/throat"): {"main": tmp_path / "repo"}}) as hub:
        answer = ask(hub.environment(tmp_path / "home"), {"dataset": "me/throat"})
    assert answer["names"] == ["test/a.wav", "train/a.wav", "train/b.wav"]
    assert any("train, test are taken as one" in note for note in answer["notes"])


def test_several_configurations_stop_before_a_download(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    pq.write_table(struct_table(["a.wav"]), folder / "clean.parquet")
    pq.write_table(struct_table(["a.wav", "b.wav"]), folder / "noisy.parquet")
    entries = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("clean", "noisy"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    with Hub({("dataset", "me/throat"): {"main": folder}}) as hub:
        answer = ask(hub.environment(tmp_path / "home"), {"dataset": "me/throat"})
        assert "2 configurations (clean, noisy)" in answer["error"]
        assert not any("resolve" in request for request in hub.requests)
        (folder / "README.md").write_text(f"---\nconfigs:\n{entries}  default: true\n---\n")
        answer = ask(hub.environment(tmp_path / "home2"), {"dataset": "me/throat"})
        assert answer["names"] == ["a.wav", "b.wav"]


def test_a_recipe_names_the_commit_that_its_search_was_made_on(tmp_path):
    repo = tone_folder(tmp_path / "repo", *"abcdefghij")
    (tmp_path / "space.yaml").write_text(
        "study: hub\ndata: {dataset: me/throat, validation: 3, test: 2}\nbudget: {max_steps: 2, rungs: [2]}\n"
        "train: {model: demo/nano, batch_size: 2}\nsearch: {learning_rate: {low: 1e-4, high: 1e-3, log: true}}\n"
    )
    with Hub({("dataset", "me/throat"): {"main": repo}}) as hub:
        environment = hub.environment(tmp_path / "home")
        done = tmsearch(tmp_path, "run", "--space", "space.yaml", "--trials", "1", **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    exported = tmsearch(tmp_path, "export", "hub", **environment)
    assert yaml.safe_load(exported.stdout)["data"]["revision"] == hub.commit("dataset", "me/throat", "main")
