"""The versions that doctor compares with are those that the tests pass with; `python FILE --write` writes them anew."""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tmsearch.machine import versions
from tmsearch.machine.versions import PackageVersion, packages

ROOT = Path(__file__).parents[3]
FILE = ROOT / "tmsearch/machine/tested_versions.txt"
HEAD = "# The packages that tmsearch names itself, as in .ci/constraints.txt: the tests pass with these.\n"


def named_packages() -> set[str]:
    """The packages that pyproject.toml names for users, canonically."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra != "test"]
    lines = sum(extras, project["dependencies"])
    return {canonicalize_name(Requirement(line).name) for line in lines}


def file_text() -> str:
    """What the file should be."""
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    named = named_packages()
    return HEAD + "".join(f"{line}\n" for line in lines if canonicalize_name(line.partition("==")[0]) in named)


def test_the_file_in_the_wheel_is_what_the_constraints_say():
    assert FILE.read_text() == file_text(), f"run `python {Path(__file__).relative_to(ROOT)} --write`"
    assert {"torch", "transformers", "optuna", "psycopg"} <= versions.tested_versions().keys()


@pytest.fixture
def played(monkeypatch):
    """Makes importlib say that these versions are installed, and nothing else."""

    def play(installed, requires):
        def version(name):
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(versions.metadata, "version", version)
        monkeypatch.setattr(versions.metadata, "requires", lambda name: requires)

    return play


def test_a_package_is_as_tested_whatever_device_it_was_built_for(played):
    tested = versions.tested_versions()
    played({"torch": f"{tested['torch']}+cu128", "numpy": "2.0.1"}, ["torch>=2.11", "numpy>=2"])
    by_name = {package.name: package for package in packages()}
    assert set(by_name) == {"torch", "numpy"}
    assert by_name["torch"].is_as_tested
    assert not by_name["numpy"].is_as_tested
    assert [package.problem for package in by_name.values()] == [None, None]


def test_what_is_missing_or_too_old_is_named_and_an_extra_may_be_missing(played):
    played({"torch": "2.3.0", "ray": "1.0"}, ["torch>=2.11", "numpy>=2", "ray>=2.50; extra == 'ray'"])
    problems = {package.name: package.problem for package in packages()}
    assert problems == {"torch": "torch 2.3.0 is not >=2.11", "numpy": "numpy>=2 is not installed", "ray": None}


def test_a_version_that_is_none_is_compared_as_it_is():
    assert PackageVersion("x", "built from here", "built from here", None).is_as_tested


def test_without_being_installed_nothing_is_required(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, "requires", missing)
    assert all(package.problem is None for package in packages())


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    FILE.write_text(file_text())
