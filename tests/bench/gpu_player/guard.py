"""Compiles guard.cpp once for the torch that is installed, and loads it before torch looks for a GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


def missing() -> str | None:
    """Why the GPU cannot be played here; None where it can."""
    return None if shutil.which("c++") else "needs a C++ compiler, c++ (Debian: g++)"


def load() -> None:
    """Loads the guard into this process, which must not have imported torch. Exits with one line where it cannot."""
    assert "torch" not in sys.modules, "torch asks for the hooks once, as it is imported"
    reason = missing()
    if reason:
        raise SystemExit(f"the GPU cannot be played: {reason}")
    ctypes.CDLL(str(compiled()), mode=ctypes.RTLD_GLOBAL)


def compiled() -> Path:
    """The library, from the temporary folder where it was compiled before (some 30 s)."""
    version = importlib.metadata.version("torch")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = Path(tempfile.gettempdir()) / f"tmsearch-gpu-player-{os.getuid()}-{version}-{digest}.so"
    if library.exists():
        return library
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    torch_folder = Path(next(iter(spec.submodule_search_locations)))
    scratch = library.with_suffix(f".{os.getpid()}.so")
    command = ["c++", "-O1", "-shared", "-fPIC", "-std=c++20"]
    command += [f"-I{torch_folder}/include", f"-I{torch_folder}/include/torch/csrc/api/include"]
    command += [str(SOURCE), "-o", str(scratch)]
    command += [f"-L{torch_folder}/lib", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch_folder}/lib"]
    subprocess.run(command, check=True)
    scratch.replace(library)  # another process may have compiled the same meanwhile
    return library
