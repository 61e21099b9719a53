"""The notebook studies/clips_to_model.ipynb: it is small and whole as committed, and its cells run one after the other.

Here with a toy and few steps, and its commands in this process; in a kernel, as it stands, with TMSEARCH_TUTORIAL=1.
"""

import ast
import json
import os
import re
import signal
from pathlib import Path

import pytest

import tmsearch
from tests.support import in_process, toy_whisper
from tests.support.command import environment
from tmsearch.api import training
from tmsearch.cli.main import main
from tmsearch.demo import paths

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "studies" / "clips_to_model.ipynb"
MOST_BYTES = 200_000
CLIPS = len(toy_whisper.TEXTS)
# What makes the cells short enough for a test; all else of them is run as it stands.
SHORTER = {
    '"max_steps": 40, "rungs": [10, 20, 40]': '"max_steps": 2, "rungs": [1, 2]',
    '"demo/nano"': '"./toy"',
    '"batch_size": 16': '"batch_size": 2',
    '"warmup_steps": {"low": 0, "high": 8, "step": 2}': '"warmup_steps": {"low": 0, "high": 2}',
    '"warmup_steps": 4': '"warmup_steps": 1',
    "trials=4": "trials=2",
}


def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(source, names):
    """Run a cell as IPython does: the value of its last line, if it is an expression, is shown."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        statements, last = [*statements, last], None
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


def test_it_is_small_and_was_executed_whole_and_nothing_of_a_machine_is_in_it():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", text)
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result", "stream"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "<svg" in "".join(output.get("data", {}).get("text/html", ""))]
    assert pictures, "the curves that were drawn while the search ran"


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A folder with a toy model, in which the demo is a toy corpus, and `tmsearch train` runs in this process."""
    toy_whisper.whisper_folder(tmp_path / "toy")
    monkeypatch.setattr(paths, "CORPUS", toy_whisper.corpus_folder(tmp_path / "hums"))
    monkeypatch.setattr(training, "_run", lambda words, storage, say: say(f"exit code {main(words)}"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with in_process.in_folder(tmp_path):
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_its_cells_run_one_after_the_other(short, capsys):
    sources = ["".join(cell["source"]) for cell in cells()]
    for long, brief in SHORTER.items():
        assert any(long in source for source in sources), long
        sources = [source.replace(long, brief) for source in sources]
    names = {}
    results = [shown(source, names) for source in sources]
    assert results[0] == repr(tmsearch.__version__)
    assert f"clips {CLIPS}," in " ".join(results[1].split())
    assert names["study"].status().has_ended
    assert sorted(names["finished"]) == [0, 1]
    assert "learning_rate" in results[3]
    printed = capsys.readouterr().out
    assert "exit code 0" in printed
    assert f"WER on the locked test clips: {names['model'].test_wer:.3f}" in printed
    assert (names["model"].folder / "model.safetensors").is_file()


@pytest.mark.skipif("TMSEARCH_TUTORIAL" not in os.environ, reason="minutes: TMSEARCH_TUTORIAL=1, as the docs job says")
def test_a_kernel_runs_it_as_it_stands(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="the notebook extra has it")
    nbclient = pytest.importorskip("nbclient", reason="the notebook extra has it")
    pytest.importorskip("ipykernel", reason="the notebook extra has it")
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    assert (folder / "throat" / "model.safetensors").is_file()
    errors = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    assert errors == []
