"""How much memory a process may use, in a container and out of one."""

import pytest

from tmsearch.machine import host_memory as module
from tmsearch.machine.host_memory import HostMemory, host_memory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (1000, 600)),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "inactive_file 0\n"}, (1000, 600)),
        ({"memory.max": "409600\n", "memory.current": "307200\n", "memory.stat": "inactive_file 102400\n"}, (400, 200)),
        (
            {
                "memory/memory.limit_in_bytes": "409600\n",
                "memory/memory.usage_in_bytes": "307200\n",
                "memory/memory.stat": "cache 9\ntotal_inactive_file 0\n",
            },
            (400, 100),
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "1\n",
                "memory/memory.stat": "",
            },
            (1000, 600),
        ),
    ],
    ids=["no group", "unlimited", "version 2", "version 1", "version 1, unlimited"],
)
def test_host_memory_is_what_the_container_may_use(tmp_path, monkeypatch, files, expected):
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    assert host_memory() == HostMemory(*(number << 10 for number in expected))


def test_where_nothing_tells_nothing_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MEMORY", tmp_path / "absent")
    assert host_memory() == HostMemory(0, 0)
