"""What this machine has for a training, in about ten lines that a person may paste into an issue."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tmsearch.formatting import file_size
from tmsearch.hub import call_within
from tmsearch.machine import disk_speed, hub_access, versions
from tmsearch.machine.accelerators import Probe
from tmsearch.machine.host_memory import host_memory
from tmsearch.version import code_version

TORCH_SECONDS = 30.0  # for importing it and asking each GPU
_DISK_SECONDS = 10.0  # for a disk of another machine that does not answer
_PROGRAM_SECONDS = 5.0
_LITTLE_DISK = 5e9  # bytes; a few checkpoints of a large model
_MOST_PACKAGES = 5  # that are named


@dataclass(frozen=True)
class Finding:
    """One line. `facts` are the same for a script; `bad` is what keeps a training from running here."""

    name: str
    state: Literal["ok", "note", "bad"]
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Folder:
    """A folder that a search writes to: what for, where, on which type of file system, and what is wrong with that."""

    name: str
    path: Path
    filesystem: str | None = None
    problem: str | None = None


def survey(folders: Sequence[Folder]) -> list[Finding]:
    """Every finding, in a fixed order, within a minute at the most and within seconds as a rule.

    No line has the name of this machine, of its user, or a path.
    """
    disks = [_disk(folder) for folder in folders]  # before torch is read from one of them
    probe = Probe()
    others = [_hub(hub_access.ask()), _ffmpeg(), _versions(versions.packages())]
    answer = probe.answer(TORCH_SECONDS)
    findings = [_tmsearch(), _python(), _platform(), _torch(answer), _gpus(answer), *disks, *others]
    return [Finding(each.name, each.state, anonymous(each.text), each.facts) for each in findings]


def anonymous(text: str) -> str:
    """The text without the user's folder and name, and without the machine's name."""
    home = Path.home()
    if home != Path(home.anchor):
        text = text.replace(str(home), "~")
    names = {"USER": getpass.getuser, "HOST": socket.gethostname}
    for word, ask in names.items():
        try:
            name = ask()
        except (OSError, KeyError):  # such as a container's user that has no name
            continue
        if name:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", word, text)
    return text


def _tmsearch() -> Finding:
    code = code_version()
    return Finding("tmsearch", "ok", code, {"version": code})


def _python() -> Finding:
    if (Path(sys.prefix) / "conda-meta").is_dir():
        place = "in a conda environment"
    elif sys.prefix != sys.base_prefix:
        place = "in a virtual environment"
    else:
        place = "the system's own"
    version = platform.python_version()
    facts = {"version": version, "implementation": platform.python_implementation(), "environment": place}
    return Finding("python", "ok", f"{version} ({platform.python_implementation()}), {place}", facts)


def _platform() -> Finding:
    libc = " ".join(platform.libc_ver()).strip()
    cores = os.cpu_count() or 1
    usable = cores
    if sys.platform == "linux":
        usable = len(os.sched_getaffinity(0))
    memory = host_memory()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    parts = [f"{system}, {libc}" if libc else system, f"{usable} of {cores} cores"]
    if memory.total:
        parts.append(f"{file_size(memory.total)} memory, {file_size(memory.free)} free")
    facts = {"system": system, "libc": libc, "cores": usable, "memory": asdict(memory)}
    return Finding("platform", "ok", "; ".join(parts), facts)


def _torch(answer: Mapping[str, Any]) -> Finding:
    """Its version, and the device that a training would take."""
    if "error" in answer:
        reason = anonymous(answer["error"])
        return Finding("torch", "bad", f"cannot be used: {reason}", {"error": reason})
    builds = [f"{name} {answer[key]}" for name, key in (("CUDA", "cuda"), ("ROCm", "rocm")) if answer[key]]
    build = f"built for {builds[0]}" if builds else "built without CUDA"
    device = answer["device"]
    trains = f"trains on the CPU, {answer['threads']} threads" if device == "cpu" else f"trains on {device}"
    return Finding("torch", "ok", f"{answer['torch']}, {build}; {trains}", answer)


def _gpus(answer: Mapping[str, Any]) -> Finding:
    """The GPUs that torch can use, or why it can use none of those that the driver knows."""
    gpus = answer.get("gpus") or []
    known = answer.get("driver_gpus") or []
    driver = f"driver {answer['driver']}" if answer.get("driver") else ""
    if gpus:
        text = "; ".join(filter(None, [_counted([_gpu_text(gpu) for gpu in gpus]), driver]))
        return Finding("gpu", "ok", text)
    if answer.get("mps"):
        return Finding("gpu", "ok", "Apple's, through Metal (MPS)")
    if not known:
        return Finding("gpu", "ok" if "error" not in answer else "note", "none")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    text = f"{_counted(known)}, {driver}"
    if hidden is not None:
        return Finding("gpu", "note", f"{text}: hidden by CUDA_VISIBLE_DEVICES={hidden!r}")
    if not answer.get("cuda"):
        return Finding("gpu", "bad", f"{text}: this torch was built without CUDA; install a build with it")
    reason = f"torch does not see it: the driver may be too old for CUDA {answer['cuda']}"
    return Finding("gpu", "bad", f"{text}: {reason}; update it, or install a build for an older CUDA")


def _gpu_text(gpu: Mapping[str, Any]) -> str:
    free = "" if gpu["free_bytes"] is None else f" ({file_size(gpu['free_bytes'])} free)"
    bf16 = "bfloat16" if gpu["bfloat16"] else "no bfloat16"
    return f"{gpu['name']} {file_size(gpu['total_bytes'])}{free}, capability {gpu['capability']}, {bf16}"


def _counted(texts: Sequence[str]) -> str:
    """Texts with equal ones joined: `4 x NVIDIA H100`."""
    return "; ".join(f"{count} x {text}" for text, count in Counter(texts).items())


def _disk(folder: Folder) -> Finding:
    name = folder.name
    try:
        speed = call_within(_DISK_SECONDS, lambda: disk_speed.measure(folder.path))
    except TimeoutError:
        return Finding(name, "bad", f"their disk does not answer within {_DISK_SECONDS:.0f} s")
    except OSError as error:
        return Finding(name, "bad", f"nothing can be written: {error.strerror}")
    filesystem = f" on {folder.filesystem}" if folder.filesystem else ""
    parts = [f"{file_size(speed.free_bytes)} free{filesystem}"]
    if speed.bytes_per_second is not None and speed.commit_seconds is not None:
        parts.append(f"writes {speed.bytes_per_second / 1e6:.0f} MB/s, a commit {1e3 * speed.commit_seconds:.1f} ms")
    little = speed.free_bytes < _LITTLE_DISK
    remarks = [remark for remark in (folder.problem, "a few checkpoints fill it" if little else None) if remark]
    facts = {**asdict(speed), "filesystem": folder.filesystem}
    return Finding(name, "note" if remarks else "ok", "; ".join([*parts, *remarks]), facts)


def _hub(access: hub_access.HubAccess) -> Finding:
    facts = asdict(access)
    token = "a token is set" if access.has_token else "no token is set"
    if access.failure:
        return Finding("hub", "note", f"{access.failure}; {token}; what is in the cache can be used", facts)
    answered = f"answers in {access.seconds:.2f} s"
    if access.status == 200:
        return Finding("hub", "ok", f"{answered}; {token}, and is taken", facts)
    if access.status == 401 and not access.has_token:
        return Finding("hub", "ok", f"{answered}; {token}: private and gated repositories are out of reach", facts)
    if access.status == 401:
        return Finding("hub", "bad", f"{answered}; {token}, and refused: set a valid HF_TOKEN or none", facts)
    return Finding("hub", "note", f"{answered}, with status {access.status}; {token}", facts)


def _ffmpeg() -> Finding:
    """Of transformers' pipeline, which decodes files with it; tmsearch reads audio without."""
    program = shutil.which("ffmpeg")
    if program is None:
        text = "none; only transformers' pipeline wants it, for files that are given by name"
        return Finding("ffmpeg", "ok", text, {"version": None})
    version = _first_match(program, r"ffmpeg version (\S+)")
    return Finding("ffmpeg", "ok", version or "does not say its version", {"version": version})


def _first_match(program: str, pattern: str) -> str | None:
    """What `pattern` finds in what `program -version` prints."""
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_PROGRAM_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, done.stdout)
    return match[1] if match else None


def _versions(packages: Sequence[versions.PackageVersion]) -> Finding:
    facts = {package.name: package.installed for package in packages}
    problems = [package.problem for package in packages if package.problem]
    if problems:
        return Finding("packages", "bad", f"{_first(problems)}; install tmsearch again", facts)
    others = [
        f"{package.name} {package.installed} (tested: {package.tested})"
        for package in packages
        if package.installed and not package.is_as_tested
    ]
    same = sum(package.is_as_tested for package in packages)
    if others:
        return Finding("packages", "note", f"{same} of {len(packages)} as tested; others: {_first(others)}", facts)
    return Finding("packages", "ok", f"all {len(packages)} as tested", facts)


def _first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_PACKAGES} more" if len(texts) > _MOST_PACKAGES else ""
    return ", ".join(texts[:_MOST_PACKAGES]) + more
