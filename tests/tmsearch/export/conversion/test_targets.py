"""What cannot be converted is said in one line before anything is loaded or written."""

import importlib.util
import json

import pytest

from tmsearch.errors import InputError
from tmsearch.export.conversion import targets


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text("{}")
    return tmp_path / "best"


def test_folders_that_are_no_model_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no such folder; give the one that `tmsearch train` wrote"):
        targets.check(tmp_path / "none", "ggml", tmp_path / "out", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no config.json in it"):
        targets.check(tmp_path / "empty", "ggml", tmp_path / "out", None)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds an adapter .* merge the adapter into its model"):
        targets.check(folder, "ggml", tmp_path / "out", None)


def test_a_folder_that_exists_is_never_written_to(folder, tmp_path):
    with pytest.raises(InputError, match="best: exists already; name another folder with --out"):
        targets.check(folder, "ggml", folder, None)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dangling: exists already"):
        targets.check(folder, "ggml", tmp_path / "dangling", None)
    with pytest.raises(InputError, match="no folder can be made there"):
        targets.check(folder, "ggml", tmp_path / "none" / "out", None)


def test_a_missing_converter_or_runtime_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--to onnx: onnx is not installed; pip install 'tmsearch\[onnx\]'"):
        targets.check(folder, "onnx", tmp_path / "out", None)
    assert targets.check(folder, "ggml", tmp_path / "out", None) == "float16", "it is written by our own writer"
    missing = targets.TARGETS["ggml"].missing_runtime()
    assert missing == "pywhispercpp is not installed; pip install 'tmsearch[whisper-cpp]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert targets.TARGETS["ggml"].missing_runtime() is None


def test_the_type_of_weights_is_one_that_the_format_has(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert targets.check(folder, "onnx", tmp_path / "out", None) == "float32"
    assert targets.check(folder, "ctranslate2", tmp_path / "out", "float32") == "float32"
    with pytest.raises(InputError, match="--dtype float16: onnx is written in float32"):
        targets.check(folder, "onnx", tmp_path / "out", "float16")


def test_every_extra_is_one_of_the_projects():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for target in targets.TARGETS.values():
        assert any(line.startswith(target.package) for line in extras[target.extra]), target


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"language": "de", "task": "translate"}, ("de", "translate")),
        ({"language": "<|de|>"}, ("de", "transcribe")),
        ({}, ("en", "transcribe")),
        ([], ("en", "transcribe")),
        (None, ("en", "transcribe")),
    ],
)
def test_language_and_task_are_the_folders_own(folder, settings, expected):
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    assert targets.language_and_task(folder) == expected
