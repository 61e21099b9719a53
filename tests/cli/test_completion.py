"""Shell completion by the shells' own protocol."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.command import ROOT, children_seconds, environment
from tests.support.study_builder import claimed_study
from tmsearch.cli.parser import COMMANDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    claimed_study(folder, 2, results=1)
    (folder / "mine.yaml").touch()
    (folder / "notes.txt").touch()
    (folder / "bin").mkdir()
    program = folder / "bin" / "tmsearch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tmsearch "$@"\n')
    program.chmod(0o755)
    return folder


def completions(folder, line, **more):
    """What a shell gets for a line whose end the cursor is at."""
    answers = folder / "answers"
    variables = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9",
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tmsearch"], cwd=folder, env=environment(folder, **variables, **more),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == ""
    return answers.read_text().split("\n") if answers.stat().st_size else []


@pytest.mark.parametrize(
    ("line", "offered", "absent"),
    [
        ("tmsearch ", set(COMMANDS), {"many"}),
        ("tmsearch st", {"status", "stop"}, {"run"}),
        ("tmsearch run --", {"--space", "--trials", "--workers", "--dry-run"}, {"--json"}),
        ("tmsearch run --on ", {"local", "slurm", "ray"}, set()),
        ("tmsearch run --space ", {"mine.yaml", "bin/"}, {"notes.txt"}),
        ("tmsearch status ", {"many"}, {"mine.yaml"}),
        ("tmsearch export ma", {"many"}, set()),
        ("tmsearch train best.yaml --soup ", {"many"}, set()),
        ("tmsearch completion ", {"bash", "zsh", "fish"}, set()),
        ("tmsearch help con", {"confirm"}, {"run"}),
        ("tmsearch init ", {"bin/"}, {"many"}),
        ("tmsearch resume many --trials ", set(), {"mine.yaml", "many"}),
    ],
)
def test_words_are_completed(folder, line, offered, absent):
    words = {word.strip() for word in completions(folder, line)}
    assert offered <= words
    assert not absent & words


@pytest.mark.parametrize(
    "storage", ["sqlite:///none/at.db", "sqlite:///mine.yaml", "postgresql://me:pw@127.0.0.1:1/db", "nonsense"]
)
def test_no_storage_is_no_completion_and_no_word(folder, storage):
    assert "many" not in completions(folder, "tmsearch status ", TMSEARCH_STORAGE=storage)
    assert not (folder / "none").exists()


def test_the_storage_on_the_line_is_the_one_asked(folder, tmp_path):
    line = f"tmsearch status --storage sqlite:///{folder}/studies/tmsearch.db m"
    assert completions(folder, line, TMSEARCH_STORAGE="sqlite:///none.db") == ["many"]


def test_answers_come_at_once_and_import_nothing_heavy(folder):
    seconds = []
    for _ in range(5):
        before = children_seconds()
        completions(folder, "tmsearch status ")
        seconds.append(children_seconds() - before)
    assert min(seconds) < 0.3
    program = (
        "import sys, os, atexit\nfrom tmsearch.cli import parser, completion\n"
        "completion.argcomplete.autocomplete = lambda parser, default_completer: None\n"
        "completion.complete(parser.new_parser(), {}); completion.study_names(None)\n"
        "print([name for name in ('torch', 'optuna', 'sqlalchemy', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_start_without_a_shell_that_asks_pays_nothing(folder):
    program = "import sys\nfrom tmsearch.cli.parser import parse\nparse(['list'])\nprint('argcomplete' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_for_that_shell(folder, shell):
    done = subprocess.run(
        [sys.executable, "-m", "tmsearch", "completion", shell], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "tmsearch" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script was only printed")
    (folder / f"script.{shell}").write_text(done.stdout)
    checked = subprocess.run([shell, "-n", str(folder / f"script.{shell}")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_bash_itself_completes(folder):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    ask = (
        'eval "$(tmsearch completion bash)"; COMP_LINE="tmsearch status ma"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; '
        "COMP_WORDS=(tmsearch status ma); COMP_CWORD=2; _python_argcomplete tmsearch ma status; "
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p tmsearch'
    )
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", ask], cwd=folder, env=environment(folder, PATH=path), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[0].strip() == "many", done.stderr
    assert "-F _python_argcomplete" in done.stdout
