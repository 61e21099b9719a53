"""Servers that tests of storages need."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def postgres(tmp_path):
    """A PostgreSQL cluster of its own in a temporary folder; as an unprivileged user when run as root."""
    programs = [Path(one) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    found = shutil.which("postgres") or (str(programs[-1]) if programs else None)
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: the postgres extra has it")
    if found is None:
        pytest.skip("PostgreSQL's server programs are not on this machine")
    folder, binaries = tmp_path / "pg", Path(found).resolve().parent
    folder.mkdir(mode=0o700)
    prefix = []
    if os.getuid() == 0:
        user = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
        for parent in [tmp_path, *tmp_path.parents]:
            if parent == Path("/tmp") or parent == Path("/"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)
        shutil.chown(folder, user)
        prefix = ["setpriv", f"--reuid={user}", "--clear-groups"]
    run = lambda *words: subprocess.run([*prefix, *words], check=True, capture_output=True, cwd="/")  # noqa: E731
    run(binaries / "initdb", "-D", folder / "data", "-U", "tester", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run(binaries / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    yield f"postgresql://tester@/postgres?host={folder}"
    run(binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
