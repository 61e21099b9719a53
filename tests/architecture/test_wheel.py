"""The wheel holds every module and the demo's data, and every module can be imported from it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = "search", "tmsearch"
LARGEST = 10 * 1024 * 1024  # bytes of the wheel; the demo may take 8 MB

# Walks both packages of the folder given, imports all of it, and prints what was found where.
WALK = """
import importlib, pkgutil, sys
from pathlib import Path
folder = Path(sys.argv[1]).resolve()
for package in sys.argv[2:]:
    top = importlib.import_module(package)
    names = [package, *(each.name for each in pkgutil.walk_packages(top.__path__, package + "."))]
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name in ("mlflow", "onnx", "trackio", "wandb"), error  # what extras bring
            print(name)
            continue
        assert Path(module.__file__).resolve().is_relative_to(folder), (name, module.__file__)
        print(name)
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ROOT, "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


def sources() -> set[str]:
    """Every file of the two packages, compiled ones and hidden ones apart."""
    files = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.as_posix() for path in files if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


def test_the_wheel_holds_every_file_of_both_packages(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    assert sources() - held == set()
    extra = {name for name in held - sources() if ".dist-info/" not in name}
    assert extra == set()
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert wheel.stat().st_size < LARGEST


def test_every_module_of_the_wheel_can_be_imported(wheel, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    done = subprocess.run(
        [sys.executable, "-P", "-c", WALK, target, *PACKAGES],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "an import warns"
    expected = {
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in sources()
        if name.endswith(".py")
    }
    assert set(done.stdout.split()) == expected
    assert list(elsewhere.iterdir()) == [], "an import leaves files"
