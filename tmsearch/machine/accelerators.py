"""What torch finds on this machine, asked in a process of its own: importing torch takes seconds, and may crash.

`python -m tmsearch.machine.accelerators` prints it as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import Any

from tmsearch import job_server

_SMI_SECONDS = 10.0  # for nvidia-smi; a driver that hangs answers never
_SMI_QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]


class Probe:
    """The process, started at once; its answer is waited for later."""

    def __init__(self) -> None:
        command = job_server.command("tmsearch.machine.accelerators")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def answer(self, seconds: float) -> dict[str, Any]:
        """What `torch_facts` returned there; `error` alone where the process failed, or took more than `seconds`."""
        try:
            output, errors = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return {"error": f"its import took more than {seconds:.0f} s"}
        lines = output.splitlines()
        if self._process.returncode == 0 and lines:
            facts: dict[str, Any] = json.loads(lines[-1])
            return facts
        reasons = errors.strip().splitlines() or [f"its process ended with {self._process.returncode}"]
        return {"error": reasons[-1]}


def torch_facts() -> dict[str, Any]:
    """The version of torch, what it was built for, the device that a training takes, and every GPU's bytes."""
    import torch

    from tmsearch import devices

    cuda = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "mps": torch.backends.mps.is_available(),
        "device": devices.device().type,
        "threads": torch.get_num_threads(),
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())] if cuda else [],
        **_driver(),
    }


def _gpu(number: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(number)
    free = None
    with contextlib.suppress(RuntimeError):  # such as where another program has the GPU for itself
        free, _ = torch.cuda.mem_get_info(number)
    return {
        "name": properties.name,
        "total_bytes": properties.total_memory,
        "free_bytes": free,
        "capability": f"{properties.major}.{properties.minor}",
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
    }


def _driver() -> dict[str, Any]:
    """The version of NVIDIA's driver and the GPUs that it knows; neither where nvidia-smi is missing or fails."""
    names = []
    version = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(_SMI_QUERY, capture_output=True, text=True, timeout=_SMI_SECONDS)
        for line in listed.stdout.splitlines() if listed.returncode == 0 else ():
            name, _, version = line.rpartition(", ")
            names.append(name)
    return {"driver": version, "driver_gpus": names}


if __name__ == "__main__":
    print(json.dumps(torch_facts()))
