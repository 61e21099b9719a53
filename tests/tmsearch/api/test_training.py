"""`tmsearch.train` runs the command in a process of its own: its lines, its errors, its end, and a signal."""

import json
import os
import pathlib
import signal
import sys
import threading

import pytest

import tmsearch
from tests.support import in_process
from tmsearch.api import training
from tmsearch.cli.parser import parse

METRICS = {"validation": {"wer": 0.3}, "test": {"wer": 0.25}, "dtype": "float32"}
# What stands for the command: it answers the signal as the command does.
PROGRAM = """
import json, os, pathlib, signal, sys, time
{setup}
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
folder.mkdir()
print("trains", flush=True)
{rest}
(folder / "metrics.json").write_text(json.dumps({metrics}))
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a program in the command's place, and notes the words that it was started with."""
    monkeypatch.chdir(tmp_path)
    words = []

    def play(rest="", setup=""):
        text = PROGRAM.format(rest=rest, setup=setup, metrics=METRICS)

        def start(module, *given):
            words.extend(given)
            return [sys.executable, "-c", text, *given]

        monkeypatch.setattr(training.job_server, "command", start)
        return words

    return play


def test_the_model_is_the_folder_that_the_command_wrote(command, capsys):
    words = command(f"assert os.environ['TMSEARCH_STORAGE'] == {'sqlite:///x.db'!r}")
    model = tmsearch.train(
        pathlib.Path("best.yaml"), average=3, on_all=True, runtimes=False, track=["none"], storage="sqlite:///x.db"
    )
    assert (os.fspath(model), model.validation_wer, model.test_wer) == ("best", 0.3, 0.25)
    assert dict(model.metrics) == METRICS
    assert capsys.readouterr().out == "trains\n"
    arguments = parse(words)
    assert (arguments.recipe, arguments.output, arguments.dtype) == ("best.yaml", "best", "float32")
    assert (arguments.average, arguments.on_all, arguments.no_runtimes, arguments.track) == (3, True, True, ["none"])


@pytest.mark.parametrize(
    ("code", "raised"), [(2, tmsearch.InputError), (1, tmsearch.RunFailedError), (-9, tmsearch.RunFailedError)]
)
def test_the_commands_line_is_the_error(command, code, raised):
    end = "os.kill(os.getpid(), 9)" if code == -9 else f"sys.exit({code})"
    command(f"print('tmsearch: best.yaml: train.dropout: wrong', file=sys.stderr, flush=True); {end}")
    with pytest.raises(raised, match=r"^best\.yaml: train\.dropout: wrong$"):
        tmsearch.train("best.yaml", progress=False)


def test_an_interrupt_is_passed_on_and_all_is_kept(command, capsys):
    command(
        "signal.pause(); print('interrupted at step 3, everything is kept', flush=True); sys.exit(130)",
        setup="signal.signal(signal.SIGTERM, lambda *_: None)",
    )
    threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(tmsearch.StudyInterrupted, match="interrupted at step 3, everything is kept"):
        tmsearch.train("best.yaml")
    assert "trains" in capsys.readouterr().out


def test_a_recipe_that_is_not_there_is_refused_by_the_real_command(tmp_path):
    with in_process.in_folder(tmp_path), pytest.raises(tmsearch.InputError, match=r"none\.yaml: no such file"):
        tmsearch.train("none.yaml")


def test_metrics_are_plain_json(command):
    command()
    assert json.loads(json.dumps(dict(tmsearch.train("best.yaml", progress=False).metrics))) == METRICS
