"""What torch's own process says of GPUs, on machines that are played."""

import json
import subprocess
import sys
import types

import pytest
import torch

from tmsearch.machine import accelerators
from tmsearch.machine.accelerators import Probe, torch_facts


def test_the_process_prints_what_this_one_finds(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    answer = Probe().answer(seconds=120)
    assert answer["torch"] == torch.__version__
    assert answer["device"] == torch_facts()["device"]
    assert answer["threads"] == 1


@pytest.fixture
def child(monkeypatch):
    """Starts a program in place of torch's process."""

    real = subprocess.Popen

    def start(program):
        command = [sys.executable, "-c", program]
        monkeypatch.setattr(accelerators.subprocess, "Popen", lambda _, **options: real(command, **options))
        return Probe()

    return start


def test_a_process_that_fails_says_its_last_line(child):
    assert child("raise ImportError('libcudart.so: no such file')").answer(20) == {
        "error": "ImportError: libcudart.so: no such file"
    }
    assert child("import os; os.kill(os.getpid(), 9)").answer(20) == {"error": "its process ended with -9"}


def test_a_process_that_hangs_is_not_waited_for(child):
    assert child("import time; time.sleep(60)").answer(0.2) == {"error": "its import took more than 0 s"}


def test_warnings_of_torch_are_not_taken_for_its_answer(child):
    assert child(f"print('a warning'); print({json.dumps(json.dumps({'torch': '1'}))})").answer(20) == {"torch": "1"}


@pytest.fixture
def two_gpus(monkeypatch):
    """Torch with two GPUs, of which another program holds the second one, and nvidia-smi that knows them."""
    properties = types.SimpleNamespace(name="NVIDIA H200", total_memory=150 << 30, major=9, minor=0)

    def mem_get_info(number):
        if number == 1:
            raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")
        return 149 << 30, 150 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    listed = subprocess.CompletedProcess([], 0, "NVIDIA H200, 570.86.15\nNVIDIA H200, 570.86.15\n")
    monkeypatch.setattr(accelerators.subprocess, "run", lambda *_, **__: listed)


def test_every_gpu_has_its_memory_and_the_driver_its_version(two_gpus):
    facts = torch_facts()
    assert facts["device"] == "cuda"
    assert [gpu["free_bytes"] for gpu in facts["gpus"]] == [149 << 30, None]
    assert facts["gpus"][0] | {"free_bytes": None} == facts["gpus"][1]
    assert facts["driver"] == "570.86.15"
    assert facts["driver_gpus"] == ["NVIDIA H200"] * 2


def test_a_machine_without_nvidia_smi_has_no_driver(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(accelerators.subprocess, "run", missing)
    assert torch_facts()["driver_gpus"] == []
