"""How fast a folder's disk is, and what is left behind by measuring it: nothing."""

import collections
import shutil

import pytest

from tmsearch.machine import disk_speed
from tmsearch.machine.disk_speed import measure

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(disk_speed, "_MOST_BLOCKS", 8)
    monkeypatch.setattr(disk_speed, "_COMMITS", 3)


def test_a_folder_that_does_not_exist_yet_is_measured_where_it_would_lie(tmp_path):
    speed = measure(tmp_path / "studies" / "deep")
    assert speed.free_bytes > 0
    assert speed.bytes_per_second > 1e5
    assert 0 < speed.commit_seconds < 10
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_left_after_a_second(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(disk_speed.time, "perf_counter", lambda: float(next(clock)))
    written = []
    monkeypatch.setattr(disk_speed.os, "write", lambda descriptor, block: written.append(len(block)) or len(block))
    speed = measure(tmp_path)
    assert speed.bytes_per_second == 4 << 20  # four blocks in the one second that the clock went on
    assert written == [1 << 20] * 4 + [4096]


def test_a_full_disk_is_not_filled_further(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 99, 1))
    assert measure(tmp_path) == disk_speed.DiskSpeed(1)


def test_a_folder_that_takes_no_files_is_an_error(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk_speed.tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError):
        measure(tmp_path)
