"""`export-model` from the command line: a whole new folder heard beside our own decoding, or one line and none."""

import contextlib
import importlib.util
import io
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import whisper_sizes
from tests.support.in_process import tmsearch
from tmsearch.errors import InputError
from tmsearch.export import model_folder
from tmsearch.export.conversion import convert, transcripts
from tmsearch.files import new_folder

NANO = Path(__file__).parents[4] / "tmsearch" / "demo" / "nano"
has_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))),
    reason="onnx and onnxruntime are not installed: the extra onnx has both",
)


@pytest.fixture
def folder(tmp_path):
    """A folder with a model, `best`."""
    shutil.copytree(NANO, tmp_path / "study" / "best")
    return tmp_path / "study"


@pytest.fixture
def in_this_process(monkeypatch):
    """The runtimes' process without a process of its own."""

    def run(command, **options):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            transcripts.main(command[-1])
        return subprocess.CompletedProcess(command, 0, output.getvalue(), "")

    monkeypatch.setattr(transcripts.subprocess, "run", run)


@has_onnx
def test_validation_clips_of_the_models_recipe_are_heard_alike(folder, in_this_process):
    recipe = {
        "data": {"dataset": "demo", "validation": 5, "test": 5},
        "train": {"model": "demo/nano", "normalize_audio": True},
    }
    (folder / "best" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = tmsearch(folder, "export-model", "best", "--to", "onnx", "--clips", "3")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("best-onnx: for onnxruntime, float32, ")
    assert second == "hearing 3 clips in onnxruntime and by our own decoding"
    assert third.startswith("3 clips: WER ")
    assert third.endswith("by our own decoding; 3 transcripts are the same")
    files = {file.name for file in (folder / "best-onnx").iterdir()}
    assert files >= {"encoder_model.onnx", "decoder_model_merged.onnx", "config.json", "generation_config.json"}
    assert files >= {"tokenizer.json", "preprocessor_config.json", "vocab.json", "added_tokens.json"}
    again = tmsearch(folder, "export-model", "best", "--to", "onnx")
    assert again.returncode == 2
    assert again.stderr == "tmsearch: best-onnx: exists already; name another folder with --out, or delete it\n"


@has_onnx
def test_a_model_without_a_recipe_is_converted_and_says_what_is_missing(folder, in_this_process):
    done = tmsearch(folder, "export-model", "best", "--to", "onnx", "--out", "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == (
        "not heard: best/recipe.yaml: not there, so there are no validation clips; name some with --data"
    )
    refused = tmsearch(folder, "export-model", "best", "--to", "onnx", "--out", "b", "--data", "nowhere")
    assert refused.returncode == 2
    assert not (folder / "b").exists()


def test_what_a_runtime_cannot_read_is_refused_before_anything_is_written(folder):
    refused = tmsearch(folder, "export-model", "best", "--to", "ggml")
    assert refused.returncode == 2
    assert refused.stderr.startswith("tmsearch: best: its encoder takes 4 s, whisper.cpp hears windows of 30 s")
    other = tmsearch(folder, "export-model", "best", "--to", "ctranslate2")
    assert other.returncode == 2
    assert "faster-whisper" in other.stderr
    unknown = tmsearch(folder, "export-model", "best", "--to", "tflite")
    assert unknown.returncode == 2
    assert "invalid choice: 'tflite'" in unknown.stderr
    assert unknown.stderr.count("\n") == 1
    (folder / "best" / "model.safetensors").write_bytes(b"cut")
    damaged = tmsearch(folder, "export-model", "best", "--to", "ggml")
    assert damaged.returncode == 2
    assert "model.safetensors is cut or damaged" in damaged.stderr
    assert [path.name for path in folder.iterdir()] == ["best"]


def test_a_missing_runtime_and_one_that_fails_are_said(tmp_path, monkeypatch, in_this_process):
    folder = tmp_path / "study"
    model_folder.export(whisper_sizes.whisper("tiny.en"), folder / "best")
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pywhispercpp" else known(name))
    done = tmsearch(folder, "export-model", "best", "--to", "ggml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == (
        "not heard: pywhispercpp is not installed; pip install 'tmsearch[whisper-cpp]'"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def fail(job, clips):
        raise RuntimeError("no such instruction\nmore")

    monkeypatch.setitem(transcripts._HEAR, "ggml", fail)
    words = ("--to", "ggml", "--out", "b", "--data", "demo", "--clips", "1")
    failed = tmsearch(folder, "export-model", "best", *words)
    assert failed.returncode == 1
    assert failed.stderr == ("tmsearch: b: whisper.cpp does not hear with it: RuntimeError: no such instruction\n")
    assert (folder / "b" / "ggml-model.bin").is_file()


def test_two_at_once_do_not_write_the_same_folder(folder):
    with new_folder(folder / "out"), pytest.raises(InputError, match="another export-model is writing it"):
        convert.convert(folder / "best", "onnx", folder / "out", "float32")
