"""Workers as jobs of a real Slurm: munged, slurmctld and slurmd of the test's own, on loopback."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from search.errors import RunError, UserError
from search.execution.launchers import slurm as slurm_launcher
from search.execution.launchers.slurm import SlurmLauncher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker_pool import WorkerPool
from search.storage.database import open_storage
from tests.support.kill_campaign import COMMAND
from tests.support.toy_study import Watcher, press_once_running, told, toy_space, toy_storage, toy_study, work

CONF = """
ClusterName=tmsearch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=500
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def missing():
    for program in ("slurmctld", "slurmd", "munged", "sbatch", "srun"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"{program} is not on this machine: Debian's slurm-wlm has it"
    if os.getuid() != 0:
        return "Slurm's daemons run jobs as their user: the test needs root"
    if subprocess.run(["id", "munge"], capture_output=True).returncode:
        return "there is no user munge"
    return None


@pytest.fixture
def slurm(monkeypatch):
    """A cluster of one node with four cores; its commands are told by SLURM_CONF."""
    pytest.importorskip("submitit", reason="submitit is not installed: the slurm extra has it")
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="tmsearch-"))
    folder.chmod(0o755)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for path in (folder / "munge", key):
        shutil.chown(path, "munge", "munge")
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, controller=port(), node=port()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    munged = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "/usr/sbin/munged", "--foreground"]
    commands = [
        [*munged, f"--socket={folder}/munge/socket", *munge],
        ["/usr/sbin/slurmctld", "-D", "-f", str(conf)],
        ["/usr/sbin/slurmd", "-D", "-f", str(conf), "-N", host],
    ]
    daemons = []
    for command in commands:
        daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(0.5)
    try:
        until = time.monotonic() + 30
        while "idle" not in (output := subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout):
            assert time.monotonic() < until, (output, (folder / "slurmctld.log").read_text()[-1000:])
            time.sleep(0.3)
        yield folder
    finally:
        subprocess.run(["scancel", "--me"], capture_output=True)
        for daemon in reversed(daemons):
            with contextlib.suppress(ProcessLookupError):
                daemon.terminate()
            daemon.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def launcher_of(folder, storage, logs, **options):
    environment = {
        "TMSEARCH_STORAGE": storage.url.render_as_string(hide_password=False),
        "TMSEARCH_STUDIES": str(folder),
        "TOY_STEP_SECONDS": "0.3",
    }
    given = {"gpus_per_node": "0", "mem": "100MB", **options}
    return SlurmLauncher([*COMMAND, str(folder / "toy")], environment, logs, given, "toy")


def test_a_search_on_slurm_with_a_requeued_job(tmp_path, slurm, cluster):
    space, storage = toy_space(tmp_path, "bracket"), open_storage(cluster.url.replace("tester@", "tester:hunter2@"))
    ledger = toy_study(storage, space, 6)
    calm = toy_study(toy_storage(tmp_path), space, 6)
    work(calm, space, tmp_path / "calm")
    locations, requeued, watcher = set(), [], Watcher()

    def requeue():
        """As preemption does: the job is ended and waits for its turn again."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            locations.update(worker.location for worker in ledger.workers())
            if any(trial.state == "running" for trial in ledger.history()) and locations:
                job = sorted(locations)[0].rpartition(" ")[2]
                subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True)
                requeued.append(job)
                # It would wait for two minutes, so that a bad node has time to be drained.
                while subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"]).returncode:
                    time.sleep(0.5)
                return
            time.sleep(0.2)

    thread = threading.Thread(target=requeue, daemon=True)
    thread.start()
    launcher = launcher_of(tmp_path, storage, tmp_path / "logs")
    assert WorkerPool(launcher, 2, ledger, Monitor(ledger, watcher), watcher.notice).run(Interrupts()) == "done"
    thread.join()
    assert told(ledger) == told(calm)
    shown = subprocess.run(["scontrol", "show", "job", requeued[0]], capture_output=True, text=True).stdout
    assert "Restarts=1" in shown
    assert all(location.startswith("Slurm job ") for location in locations)
    files = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".sh" for path in files)
    assert not any(path.suffix == ".pkl" for path in files), "no pickle is written for a job to load"
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_ctrl_c_ends_the_jobs_and_gives_their_work_back(tmp_path, slurm, cluster):
    ledger = toy_study(open_storage(cluster.url), toy_space(tmp_path), 40)
    interrupts, watcher = Interrupts(), Watcher()

    press_once_running(ledger, interrupts)
    launcher = launcher_of(tmp_path, ledger.storage, tmp_path / "logs")
    assert WorkerPool(launcher, 1, ledger, Monitor(ledger, watcher), watcher.notice).run(interrupts) == "interrupted"
    assert not any(trial.state == "running" for trial in ledger.history())
    assert not subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout.strip()


def test_what_slurm_refuses_is_said_in_one_line(tmp_path, slurm, cluster):
    ledger = toy_study(open_storage(cluster.url), toy_space(tmp_path), 2)
    launcher = launcher_of(tmp_path, ledger.storage, tmp_path / "logs", partition="nowhere")
    with pytest.raises(RunError, match=r"--on slurm: sbatch refused the job: .*partition") as caught:
        launcher.start(0)
    assert "\n" not in str(caught.value)


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: the slurm extra has it")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no srun on this machine"):
        slurm_launcher.checked_options(())
    monkeypatch.setattr(slurm_launcher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--on slurm: needs submitit: pip install 'tmsearch\[slurm\]'"):
        slurm_launcher.checked_options(())
    with pytest.raises(UserError, match="--engine queue: no such option here; this engine takes partition"):
        slurm_launcher.checked_options(("queue=gpu",))
