"""Uploads through the real client to a hub on the loopback: what arrives, and the one line that says why not."""

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT
from tests.support.hub_server import refusing_url
from tests.support.upload_server import UploadHub

TOKEN = "hf_aVerySecretToken"
PUSH = """
import sys
from pathlib import Path
from tmsearch.export import push_to_hub
from tmsearch.errors import InputError
try:
    push_to_hub.push(Path(sys.argv[1]), sys.argv[2], private=sys.argv[3] == "private", say=print)
except InputError as error:
    print("refused:", error)
"""


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "runs").mkdir(parents=True)
    card = "---\nmodel-index:\n- name: model\n  results: []\n---\n# model\n"
    texts = {"README.md": card, "config.json": "{}", "options.json": "paths", "clips-000006.jsonl": "said"}
    for name, text in texts.items():
        (model / name).write_text(text)
    (model / "runs" / "events.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"w" * 5000)
    (model / "other.safetensors").write_bytes(b"v" * 5000)
    return model


def push(folder, environment, name="me/throat", how="private"):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), name, how],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "hf_" not in done.stdout
    assert len(done.stdout.splitlines()) == 1
    return done.stdout


def test_a_model_arrives_whole_private_and_without_what_is_nobodys_business(folder, tmp_path):
    with UploadHub(TOKEN) as hub:
        output = push(folder, hub.environment(tmp_path / "home", TOKEN))
        assert output == f"{hub.url}/me/throat: uploaded, private\n"
    assert set(hub.files["me/throat"]) == {"README.md", "config.json", "model.safetensors", "other.safetensors"}
    assert hub.files["me/throat"]["model.safetensors"] == b"w" * 5000
    assert hub.settings["me/throat"] == {"private": True}


def test_public_is_said_and_a_bare_name_is_the_tokens_owners(folder, tmp_path):
    with UploadHub(TOKEN, owner="lee") as hub:
        assert push(folder, hub.environment(tmp_path / "home", TOKEN), "throat", "public").endswith(": uploaded\n")
    assert hub.settings["lee/throat"] == {"private": False}


def test_an_interrupted_upload_resumes_with_what_is_missing(folder, tmp_path):
    with UploadHub(TOKEN, breaks_after=1) as hub:
        environment = hub.environment(tmp_path / "home", TOKEN)
        first = push(folder, environment)
        assert "answered 400" in first
        assert "is kept, the same command resumes the upload" in first
        assert not hub.files["me/throat"], "half of a model is not seen"
        hub.breaks_after = None
        assert "uploaded" in push(folder, environment)
    assert sorted(set(hub.puts)) == sorted(hub.puts), "no file is sent twice"
    assert len(hub.puts) == 2
    assert "model.safetensors" in hub.files["me/throat"]


def test_every_refusal_is_one_line_that_says_what_to_do(folder, tmp_path):
    with UploadHub(TOKEN, orgs=("lab",), refuses=("lab",)) as hub:
        home = tmp_path / "home"
        assert "HF_TOKEN is not set" in push(folder, hub.environment(home))
        assert hub.requests == [], "nobody was asked"
        assert "does not accept HF_TOKEN (401)" in push(folder, hub.environment(home, "hf_wrong"))
        assert "no right to write" in push(folder, hub.environment(home, TOKEN), "lab/throat")
        assert "is no member of other; give me/throat" in push(folder, hub.environment(home, TOKEN), "other/throat")
        assert "not a repository name" in push(folder, hub.environment(home, TOKEN), "me/thr oat")
    assert hub.files == {}
    with UploadHub(TOKEN, role="read") as hub:
        assert "may only read" in push(folder, hub.environment(tmp_path / "home", TOKEN))
    nowhere = {**hub.environment(tmp_path / "home", TOKEN), "HF_ENDPOINT": refusing_url()}
    assert "cannot be reached; check the network" in push(folder, nowhere)


def test_what_is_to_be_private_is_never_uploaded_where_others_see_it(folder, tmp_path):
    with UploadHub(TOKEN, orgs=("lab",), open_orgs=("lab",)) as hub:
        environment = hub.environment(tmp_path / "home", TOKEN)
        hub.files["me/throat"] = {}
        hub.settings["me/throat"] = {"private": False}
        refused = push(folder, environment)
        assert "me/throat: is public there" in refused
        assert "or say --public" in refused
        assert hub.files["me/throat"] == {}, "nothing was uploaded"
        assert "is public there" in push(folder, environment, "lab/throat"), "made public by its organisation"
        assert hub.files["lab/throat"] == {}
        assert push(folder, environment, how="public").endswith(": uploaded\n")


def test_an_upload_says_who_sees_it_as_the_hub_has_it(folder, tmp_path):
    with UploadHub(TOKEN) as hub:
        environment = hub.environment(tmp_path / "home", TOKEN)
        hub.files["me/throat"] = {}
        hub.settings["me/throat"] = {"private": True}
        assert push(folder, environment).endswith(": uploaded, private\n")
        assert "the repository is private as it was" in push(folder, environment, how="public")


def test_a_public_repository_is_refused_before_anything_is_trained(tmp_path):
    recipe = tmp_path / "best.yaml"
    recipe.write_text("data: {dataset: demo, language: en, validation: 8, test: 8}\ntrain: {model: demo/nano}\n")
    with UploadHub(TOKEN) as hub:
        hub.files["me/throat"] = {}
        hub.settings["me/throat"] = {"private": False}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        refused = subprocess.run(
            [sys.executable, "-m", "tmsearch", "train", str(recipe), "--push-to-hub", "me/throat"],
            env={**inherited, "PYTHONPATH": str(ROOT), **hub.environment(tmp_path / "home", TOKEN)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert refused.returncode == 2, refused.stderr
    assert "is public there" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "best").exists()
