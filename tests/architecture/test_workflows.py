"""The workflows run what there is: files, tests, commands and systems, each job within a limit."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SYSTEMS = {"ubuntu-latest", "macos-latest", "windows-latest"}


def jobs(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def lines(job):
    return [line for step in job["steps"] for line in step.get("run", "").splitlines() if line]


JOBS = [(path, name) for path in WORKFLOWS for name in jobs(path)]


@pytest.mark.parametrize(("path", "name"), JOBS, ids=[f"{path.stem}-{name}" for path, name in JOBS])
def test_a_job(path, name):
    job = jobs(path)[name]
    assert job["runs-on"] in SYSTEMS
    assert job["timeout-minutes"] <= 40
    for step in job["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert "@" in step.get("uses", "@"), "a version"
    for line in lines(job):
        for file in re.findall(r"(?:tests|spaces|\.ci|\.github)/[\w./-]+", line):
            assert (ROOT / file).exists(), file
        command = re.search(r"-m tmsearch (.*)", line)
        if command:
            from tmsearch.cli.parser import parse

            parse(shlex.split(command[1]))


def test_every_system_installs_what_the_constraints_hold_and_searches():
    tests = jobs(ROOT / ".github/workflows/tests.yml")
    for name, system in (("macos", "macos-latest"), ("windows", "windows-latest")):
        job = tests[name]
        assert job["runs-on"] == system
        text = "\n".join(lines(job))
        assert "-c .ci/constraints.txt -e '.[test]'" in text
        assert "-m tmsearch run --space spaces/demo.yaml" in text
        assert "-m pytest" in text
        assert "-m mypy" in text
        assert job["strategy"]["matrix"]["python"] == tests["linux"]["strategy"]["matrix"]["python"]


def test_the_oldest_python_is_the_one_that_the_project_asks_for():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'requires-python = ">=([\d.]+)"', text)[1]
    assert jobs(ROOT / ".github/workflows/tests.yml")["linux"]["strategy"]["matrix"]["python"][0] == oldest
