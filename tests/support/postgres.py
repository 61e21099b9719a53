"""PostgreSQL clusters of the tests' own, in a folder: started, killed, started again."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path


def programs():
    """The folder of PostgreSQL's server programs; None where there are none."""
    installed = [Path(program) for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    on_path = shutil.which("postgres")
    if on_path:
        installed.append(Path(on_path))
    return installed[-1].resolve().parent if installed else None


def missing():
    """Why there can be no cluster here; None where there can."""
    if programs() is None:
        return "PostgreSQL's server programs are not on this machine"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "PostgreSQL's driver is not installed: the postgres extra has it"
    return None


@contextlib.contextmanager
def temporary_cluster():
    """A server until the end of the block; not in pytest's folders, which another pytest shuts for other users."""
    folder = Path(tempfile.mkdtemp(prefix="tmsearch-"))
    cluster = Cluster(folder / "pg")
    try:
        yield cluster
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may have been killed
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """One server, on a socket in its folder; as an unprivileged user when run as root."""

    def __init__(self, folder):
        self.folder, self._programs, self._prefix = folder, programs(), []
        self._databases = 0  # made so far
        folder.mkdir(mode=0o700)
        if os.getuid() == 0:
            user = "postgres" if subprocess.run(["id", "postgres"], capture_output=True).returncode == 0 else "nobody"
            for parent in folder.parents:
                if parent in (Path("/tmp"), Path("/")):
                    break
                parent.chmod(parent.stat().st_mode | 0o011)
            shutil.chown(folder, user)
            self._prefix = ["setpriv", f"--reuid={user}", "--clear-groups"]
        self._run("initdb", "-U", "tester", "--auth=trust", "--no-sync")
        self.start()

    @property
    def url(self):
        return f"postgresql://tester@/postgres?host={self.folder}"

    @property
    def pid(self):
        """The server's first process; None while it does not run."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        return None

    @contextlib.contextmanager
    def new_database(self):
        """The URL of an empty database, until the end of the block."""
        import psycopg

        self._databases += 1
        name = f"database_{self._databases}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            try:
                yield self.url.replace("/postgres?", f"/{name}?")
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-m", "immediate", "stop")

    def kill(self, number):
        """End the server by a signal, as the world does, and start it again once all of it is gone."""
        pid = self.pid
        os.kill(pid, number)
        for patience in (1.0, 20.0):
            until = time.monotonic() + patience
            while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                time.sleep(0.05)
            if not Path(f"/proc/{pid}").exists():
                break
            os.kill(pid, signal.SIGQUIT)  # asked politely, it waits for its clients to leave
        for _ in range(50):
            with contextlib.suppress(subprocess.CalledProcessError):  # its last processes hold on to its memory
                return self.start()
            time.sleep(0.2)
        raise AssertionError(f"the server does not start again: {(self.folder / 'log').read_text()[-500:]}")

    def _run(self, program, *words):
        command = [*self._prefix, self._programs / program, "-D", self.folder / "data", *words]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
