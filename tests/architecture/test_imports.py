"""The one law, and the house rules that a program can check."""

from __future__ import annotations

import ast
import logging.config
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
PACKAGES = "search", "tmsearch"
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]
# search/ could tune anything; tmsearch/ could train if Optuna did not exist.
NOT_IN_SEARCH = {"tmsearch", "torch", "transformers", "datasets", "soundfile", "peft", "jiwer", "evaluate"}
NOT_IN_TMSEARCH = {"optuna", "optuna_dashboard"}
SEAM = ("tmsearch/api/", "tmsearch/cli/", "tmsearch/trial/")  # all that knows both sides
LONGEST_FILE, LONGEST_FUNCTION = 400, 40  # lines; of a function without its docstring


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def on_the_seam(path: Path) -> bool:
    return name(path).startswith(SEAM)


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it, by statement or by a literal name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: a relative import hides what it imports"
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {module.split(".")[0] for module in found}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_one_law(path):
    forbidden = NOT_IN_SEARCH if name(path).startswith("search/") else NOT_IN_TMSEARCH
    if name(path).startswith("tmsearch/") and not on_the_seam(path):
        forbidden = forbidden | {"search"}
    assert not imported(path) & forbidden


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_its_job_in_its_first_line(path):
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    assert lines
    assert lines[0].strip()
    assert path.stem != "utils"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_function_is_too_long(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


def test_imports_run_in_one_direction(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # It configures logging for a program of its own, and would disable every logger that the tests after it listen to.
    monkeypatch.setattr(logging.config, "dictConfig", lambda settings: None)
    outcome = lint_imports(no_cache=True)
    assert outcome == 0, capsys.readouterr().out
