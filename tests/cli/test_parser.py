"""Commands without training: help, mistakes, exit codes, speed."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.support import in_process
from tests.support.command import ROOT, SPACE, children_seconds, environment, tmsearch
from tmsearch import __version__
from tmsearch.cli.parser import COMMANDS, GROUPS, parse


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "space.yaml").write_text(SPACE)
    return tmp_path / "here"


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def one_line(done, *parts):
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["COMMAND", "--help"]),
        (["runn"], ["no such command", "did you mean run?"]),
        (["help", "stats"], ["no such command", "did you mean status?"]),
        (["run", "--trails", "3"], ["no such option: --trails", "did you mean --trials?", "tmsearch run --help"]),
        (["run", "--spcae=x.yaml"], ["--spcae", "did you mean --space?"]),
        (["status", "small", "--jsn"], ["did you mean --json?"]),
        (["status", "small", "more"], ["unexpected: more", "tmsearch status --help"]),
        (["status", "small", "--qqq"], ["there are", "--watch"]),
        (["status", "x" * 300], ["tmsearch: " + "x" * 61 + "...: no such study: there is no storage"]),
        (
            ["tensorboard", "small", "--port", "80808"],
            ["argument --port: '80808' is not a port, a whole number"],
        ),
        (["dashboard", "--port", "80808"], ["argument --port: '80808' is not a port, a whole number from 0 to 65535"]),
        (["data", "r\x07"], ["tmsearch: data: data.dataset: the text has characters that cannot be shown"]),
        (["run"], ["--space"]),
        (["run", "--space", ""], ["argument --space: is empty; give a value", "tmsearch run --help"]),
        (["status", ""], ["argument STUDY: is empty"]),
        (["status", "small", "--storage="], ["argument --storage: is empty"]),
        (["report", "small", "-o", ""], ["argument -o/--output: is empty"]),
        (["run", "space.yaml", "--trials", "3"], ["did you mean --space space.yaml?"]),
        (["run", "--space", "none.yaml"], ["none.yaml"]),
        (["run", "--space", "space.yaml", "--trials", "0"], ["--trials", "'0'"]),
        (["run", "--space", "space.yaml", "--timeout", "soon"], ["--timeout", "2h"]),
        (["run", "--space", "space.yaml", "--set", "train.batch_sise=3"], ["batch_sise", "batch_size"]),
        (["run", "--space", "space.yaml", "--study", "a/b"], ["--study"]),
        (["run", "--space", "space.yaml", "--storage", "mysql://u:pw@h/d"], ["mysql is not supported"]),
        (["run", "--space", "space.yaml", "--set", "data.dataset=./nowhere"], ["nowhere"]),
        (["run", "--space", "space.yaml", "--set", "model=demo/mikro"], ["demo/mikro"]),
        (["run", "--space", "space.yaml", "--set", "data.validation=500"], ["data.validation"]),
        (["run", "--space", "space.yaml", "--set", "context_seconds=1"], ["context_seconds", "longer"]),
        (["resume", "small"], ["no such study"]),
        (["status", "small"], ["no such study"]),
        (["best", "small"], ["no such study"]),
        (["show", "small", "x"], ["'x'"]),
        (["export", "small"], ["no such study"]),
        (["train", "none.yaml"], ["none.yaml"]),
        (["train", "space.yaml"], ["space.yaml: a space file, not a recipe", "tmsearch run --space space.yaml"]),
        (["dashboard"], ["no study yet"]),
        (["tensorboard", "small"], ["no such study"]),
        (["data", "nowhere/"], ["nowhere"]),
        (["run", "--space", "space.yaml", "--notify", "mailto:me"], ["--notify", "http(s) URL nor `desktop`"]),
        (["status", "small", "https://hook/secret"], ["unexpected: https://..."]),
        (["delete", "small", "--yes"], ["no such study"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, words, parts):
    before = files(folder)
    one_line(in_process.tmsearch(folder, *words, HF_HUB_OFFLINE="1"), *parts)
    assert files(folder) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(folder, name):
    done = in_process.tmsearch(folder, name, "--help")
    assert done.returncode == 0
    assert "?." not in done.stdout
    examples = re.search(r"\nexamples?:\n((?:  .+\n)+)", done.stdout)[1]
    for example in examples.splitlines():
        words = shlex.split(example.partition("#")[0].partition("&&")[0].partition(" > ")[0])
        if words[0] == "eval":
            words = words[1].strip("$()").split()
        assert words[:2] == ["tmsearch", name]
        parse(words[1:])  # each can be typed as it stands
    assert in_process.tmsearch(folder, "help", name).stdout == done.stdout


def test_help_has_every_command_in_one_group(folder):
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    assert set(COMMANDS) <= set(names)
    printed = tmsearch(folder, "help").stdout
    assert printed == tmsearch(folder, "--help").stdout
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 110


def fastest(folder, *words):
    """The processor's seconds of the quickest of five: the machine's noise only adds."""
    seconds = []
    for _ in range(5):
        before = children_seconds()
        assert tmsearch(folder, *words).returncode == 0
        seconds.append(children_seconds() - before)
    return min(seconds)


def waiting_study(folder):
    """A study of 50 configurations that wait."""
    from search import study
    from search.space import search_space
    from search.storage import database
    from tmsearch.cli.services.knobs import DATA, TRAIN

    space = search_space.load(folder / "space.yaml", train=TRAIN, data=DATA)
    storage = database.open_storage(f"sqlite:///{folder}/studies/tmsearch.db")
    ledger = study.create(storage, space, seed=0, trials=50, version="test", facts={})
    for number in range(50):
        ledger.append("added", {}, {"learning_rate": 1e-4 * number, "normalize_audio": True})


def test_help_and_status_answer_fast(folder):
    assert fastest(folder, "--help") < 0.5
    waiting_study(folder)
    assert fastest(folder, "status", "small") < 1.0


@pytest.mark.parametrize("words", [["--help"], ["status", "small"], ["list"]])
def test_looking_imports_no_torch_no_optuna_and_no_numpy(folder, words):
    waiting_study(folder)
    program = (
        "import sys; from tmsearch.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "slow = ('torch', 'transformers', 'datasets', 'optuna', 'scipy', 'numpy')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_dry_run_prints_the_plan_and_writes_nothing(folder):
    before = files(folder)
    done = in_process.tmsearch(folder, "run", "--space", "space.yaml", "--trials", "5", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    split = "186 to train, 8 to validate, 6 locked"
    for part in ("5 configurations", "judged at steps 2, 4, 6", split, "nano", "MB to train"):
        assert part in done.stdout
    assert files(folder) == before


def test_data_describes_a_dataset_and_a_space(folder):
    done = tmsearch(folder, "data", "space.yaml")
    assert done.returncode == 0, done.stderr
    assert "200" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    as_json = tmsearch(folder, "data", "demo", "--json")
    assert as_json.stdout.startswith("{")


def test_module_and_version():
    done = subprocess.run([sys.executable, "-m", "tmsearch", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"tmsearch {__version__}\n"


@pytest.mark.parametrize("target", ["file/x.yaml", "/proc/none/x.yaml"])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path, target):
    (tmp_path / "file").write_text("no folder")
    refused = tmsearch(tmp_path, "init", "demo", "-o", target)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"-o {target}: cannot be written" in refused.stderr
