"""The documents as a site: it builds, no link of it leads nowhere, and the tutorial's commands run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.in_process import tmsearch

ROOT = Path(__file__).parents[2]
SITE = ROOT / ".github" / "site"


def test_the_site_builds_without_a_warning_and_has_every_command(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason=f"{package} is not installed: the docs extra has it")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    done = subprocess.run(
        [*build, "-f", SITE / "mkdocs.yml", "-d", tmp_path / "site"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "site/reference/commands.html").read_text()
    assert "usage: tmsearch confirm" in commands
    assert "on_rung" in (tmp_path / "site/reference/python.html").read_text()
    assert "context_step" in (tmp_path / "site/reference/knobs.html").read_text()
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', text), (
            f"{page} fetches from elsewhere"
        )


def tutorial_commands():
    text = (SITE / "tutorial.md").read_text(encoding="utf-8")
    for shell in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from shell.splitlines()


# What makes the tutorial's commands short enough for a test; all else of them is run as it stands.
SHORTER = {
    "--trials 4": "--trials 2",
    "max_steps=24": "max_steps=2",
    "[6, 12, 24]": "[1, 2]",
    "train best.yaml": "train best.yaml --no-runtimes",
}


@pytest.mark.skipif("TMSEARCH_TUTORIAL" not in os.environ, reason="a minute: TMSEARCH_TUTORIAL=1, as the docs job says")
def test_the_commands_of_the_tutorial_run_one_after_the_other(tmp_path):
    commands = list(tutorial_commands())
    for long, short in SHORTER.items():
        assert any(long in command for command in commands)
        commands = [command.replace(long, short) for command in commands]
    folder = tmp_path / "tutorial"
    folder.mkdir()
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "tmsearch"
        done = tmsearch(folder, *words)
        assert (done.returncode, done.stderr) == (0, ""), command + done.stdout + done.stderr
    assert (folder / "best" / "model.safetensors").is_file()
    assert "locked clips" in done.stdout
