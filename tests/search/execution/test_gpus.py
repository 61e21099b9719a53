"""GPUs are counted without torch, by whatever of the driver is there."""

import os
import stat

import pytest

from search.execution.launchers import gpus
from search.execution.launchers.local import LocalLauncher

TWO = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-0a1b2c3d-d268-c3f3-1b07-005d5ae1dc3f)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-7a7ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose /proc tells nothing, without a CUDA driver; `machine(text)` puts an nvidia-smi on its PATH."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "_DRIVER", tmp_path / "proc")
    monkeypatch.setattr(gpus, "_CUDA_LIBRARY", str(tmp_path / "libcuda.so.1"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    gpus._from_nvidia_smi.cache_clear()
    gpus._from_driver.cache_clear()

    def install(text, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}EOF\nexit {code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    yield install
    gpus._from_nvidia_smi.cache_clear()
    gpus._from_driver.cache_clear()


def test_a_machine_without_a_driver_has_none(machine):
    assert gpus.gpus() == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (TWO, ["0", "1"]),
        (DIVIDED, ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", "1"]),
        ("No devices found.\n", []),
    ],
)
def test_nvidia_smi_is_asked_where_proc_tells_nothing(machine, text, names):
    machine(text)
    assert gpus.gpus() == names


def test_an_nvidia_smi_that_fails_counts_for_nothing(machine):
    machine("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n" + TWO, code=9)
    assert gpus.gpus() == []


def test_one_that_hangs_is_not_waited_for(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "_SECONDS", 0.1)
    machine("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 30\n")
    assert gpus.gpus() == []


def test_proc_is_believed_before_nvidia_smi_and_the_variable_before_both(machine, monkeypatch, tmp_path):
    machine(TWO)
    for number in range(3):
        (tmp_path / "proc" / f"0000:0{number}:00.0").mkdir(parents=True)
    assert gpus.gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert gpus.gpus() == ["5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus.gpus() == []


def test_workers_are_pinned_to_the_gpus_that_nvidia_smi_lists(machine, tmp_path):
    machine(TWO)
    launcher = LocalLauncher(["true"], {}, tmp_path / "logs", 3)
    assigned = [launcher._assignment(slot) for slot in range(3)]
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in assigned] == ["0", "1", "0"]
    assert [worker["TMSEARCH_GPU_WORKERS"] for worker in assigned] == ["2", "1", "2"]
    assert [worker["TMSEARCH_PLACE"] for worker in assigned] == ["GPU 0", "GPU 1", "GPU 0"]
    assert not any("TMSEARCH_CPUS" in worker for worker in assigned)


def test_workers_are_divided_evenly():
    assert gpus.sharing(5, 2) == [3, 2]
    assert gpus.sharing(1, 2) == [1, 0]
    assert gpus.sharing(3, 0) == []
