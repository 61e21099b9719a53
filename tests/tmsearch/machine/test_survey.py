"""Ten lines about a machine, of machines that are played: what each says, and what none may say."""

import getpass
import json
import socket
from pathlib import Path

import pytest

from tmsearch.machine import survey as module
from tmsearch.machine.disk_speed import DiskSpeed
from tmsearch.machine.hub_access import HubAccess
from tmsearch.machine.survey import Folder, anonymous, survey
from tmsearch.machine.versions import PackageVersion

CPU = {
    "torch": "2.13.0+cpu",
    "cuda": None,
    "rocm": None,
    "mps": False,
    "device": "cpu",
    "threads": 2,
    "gpus": [],
    "driver": None,
    "driver_gpus": [],
}
H200 = {
    "name": "NVIDIA H200",
    "total_bytes": 150_000_000_000,
    "free_bytes": 149_000_000_000,
    "capability": "9.0",
    "bfloat16": True,
}


class Machine:
    """What the parts of a survey find; a test changes what it is about."""

    def __init__(self):
        self.torch = CPU
        self.hub = HubAccess(has_token=False, status=401, seconds=0.21)
        self.disk = DiskSpeed(78 * 10**9, 300e6, 0.002)
        self.packages = [PackageVersion("torch", "2.13.0", "2.13.0+cpu", None)]

    def measure(self, folder):
        if isinstance(self.disk, OSError):
            raise self.disk
        return self.disk


@pytest.fixture
def machine(monkeypatch):
    played = Machine()

    class PlayedProbe:
        def answer(self, seconds):
            return played.torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(module, "Probe", PlayedProbe)
    monkeypatch.setattr(module.hub_access, "ask", lambda: played.hub)
    monkeypatch.setattr(module.disk_speed, "measure", lambda folder: played.measure(folder))
    monkeypatch.setattr(module.versions, "packages", lambda: played.packages)
    return played


def line(name, folders=()):
    """The state and the text of one finding."""
    (finding,) = [finding for finding in survey(folders) if finding.name == name]
    return finding.state, finding.text


def test_ten_lines_that_name_neither_the_machine_nor_its_user(machine):
    machine.torch = {
        "error": f"OSError: {Path.home()}/lib/libtorch.so of {getpass.getuser()} at {socket.gethostname()}"
    }
    findings = survey([Folder("studies", Path.home() / "studies"), Folder("cache", Path.home() / ".cache")])
    assert len(findings) == 10
    text = json.dumps([[finding.text, dict(finding.facts)] for finding in findings])
    assert "~/lib/libtorch.so of USER at HOST" in text
    assert f"{Path.home()}/" not in text


def test_a_home_that_is_the_root_folder_hides_no_path(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert anonymous("and/or") == "and/or"


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "ok", ["none"]),
        (
            {"gpus": [H200, H200], "driver": "570.86"},
            "ok",
            ["2 x NVIDIA H200 150.0 GB (149.0 GB free)", "driver 570.86"],
        ),
        ({"gpus": [{**H200, "free_bytes": None, "bfloat16": False}]}, "ok", ["150.0 GB, capability", "no bfloat16"]),
        ({"mps": True}, "ok", ["Apple", "MPS"]),
        ({"driver": "570.86", "driver_gpus": ["NVIDIA H200"]}, "bad", ["built without CUDA", "install"]),
        ({"driver": "470.1", "driver_gpus": ["A", "A"], "cuda": "12.8"}, "bad", ["2 x A", "too old for CUDA 12.8"]),
    ],
    ids=["none", "two", "another program's", "Apple", "CPU build", "old driver"],
)
def test_the_gpu_line(machine, changes, state, words):
    machine.torch = {**CPU, **changes}
    assert line("gpu")[0] == state
    assert all(word in line("gpu")[1] for word in words)


def test_gpus_that_a_variable_hides_are_no_fault(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine.torch = {**CPU, "driver": "570.86", "driver_gpus": ["NVIDIA H200"], "cuda": "12.8"}
    state, text = line("gpu")
    assert state == "note"
    assert "CUDA_VISIBLE_DEVICES" in text


@pytest.mark.parametrize(
    ("access", "state", "words"),
    [
        (HubAccess(False, 401, 0.2), "ok", "no token is set"),
        (HubAccess(True, 200, 0.2), "ok", "is taken"),
        (HubAccess(True, 401, 0.2), "bad", "refused"),
        (HubAccess(True, 503, 0.2), "note", "status 503"),
        (HubAccess(False, failure="did not answer within 8 s"), "note", "did not answer"),
    ],
)
def test_the_hub_line(machine, access, state, words):
    machine.hub = access
    assert line("hub")[0] == state
    assert words in line("hub")[1]


def test_a_disk_that_takes_nothing_is_bad_and_a_full_one_worth_a_note(machine):
    folders = [Folder("studies", Path("studies"), "ext4"), Folder("cache", Path("cache"), "nfs4", "SQLite is refused")]
    assert line("studies", folders) == ("ok", "78.0 GB free on ext4; writes 300 MB/s, a commit 2.0 ms")
    assert line("cache", folders)[0] == "note"
    machine.disk = DiskSpeed(10**9)
    assert line("studies", folders) == ("note", "1.0 GB free on ext4; a few checkpoints fill it")
    machine.disk = DiskSpeed(3_000_000)
    assert line("studies", folders)[1].startswith("3.0 MB free on ext4")
    machine.disk = PermissionError(13, "Permission denied", str(Path.home()))
    assert line("studies", folders) == ("bad", "nothing can be written: Permission denied")


def test_packages_are_as_tested_or_others_or_wrong(machine):
    assert line("packages") == ("ok", "all 1 as tested")
    others = [PackageVersion(f"p{number}", "1", "2", None) for number in range(7)]
    machine.packages = [*machine.packages, *others]
    state, text = line("packages")
    assert state == "note"
    assert text.startswith("1 of 8 as tested; others: p0 2 (tested: 1), ")
    assert text.endswith("p4 2 (tested: 1) and 2 more")


def test_ffmpeg_has_a_version_or_is_not_missed(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert line("ffmpeg")[1].startswith("none")
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ffmpeg version 7.1-static Copyright\n")
    program.chmod(0o755)
    assert line("ffmpeg") == ("ok", "7.1-static")


def test_a_torch_that_cannot_be_imported_is_bad_and_the_rest_is_still_said(machine):
    machine.torch = {"error": "its import took more than 30 s"}
    assert line("torch") == ("bad", "cannot be used: its import took more than 30 s")
    assert line("hub")[0] == "ok"
    assert line("gpu")[0] == "note"
