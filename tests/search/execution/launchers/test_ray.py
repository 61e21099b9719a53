"""Workers as tasks of a real Ray cluster on this machine, one node of which goes away."""

import threading
import time

import pytest

from search.errors import RunError, UserError
from search.execution.launchers.ray import RayLauncher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker_pool import WorkerPool
from search.storage.database import open_storage
from tests.support.kill_campaign import COMMAND
from tests.support.toy_study import Watcher, press_once_running, told, toy_space, toy_storage, toy_study, work

ray = pytest.importorskip("ray", reason="Ray is not installed: the ray extra has it")


@pytest.fixture(scope="module")
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def nodes(environment):
    """A head without room for a worker, and three nodes with room for one each; they take 10 s to come up."""
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False},
    )
    added = [cluster.add_node(num_cpus=1, object_store_memory=memory) for _ in range(3)]
    cluster.wait_for_nodes()
    try:
        yield cluster, added
    finally:
        ray.shutdown()
        cluster.shutdown()


def launcher_of(folder, storage, cluster):
    environment = {
        "TMSEARCH_STORAGE": storage.url.render_as_string(hide_password=False),
        "TMSEARCH_STUDIES": str(folder),
        "TOY_STEP_SECONDS": "0.5",
    }
    options = {"address": cluster.address, "num_gpus": "0"}
    return RayLauncher([*COMMAND, str(folder / "toy")], environment, options, "toy")


def test_a_search_on_ray_that_loses_a_node(tmp_path, nodes, cluster):
    space, storage = toy_space(tmp_path, "bracket"), open_storage(cluster.url)
    ledger = toy_study(storage, space, 6)
    calm = toy_study(toy_storage(tmp_path), space, 6)
    work(calm, space, tmp_path / "calm")
    locations, watcher = set(), Watcher()
    ray_cluster, added = nodes

    def lose():
        until = time.monotonic() + 90
        while len(ledger.workers()) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        locations.update(worker.location for worker in ledger.workers())
        lost_node = next(
            node for node in added if any(node.node_id.startswith(location.split()[-1]) for location in locations)
        )
        ray_cluster.remove_node(lost_node, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    launcher = launcher_of(tmp_path, storage, ray_cluster)
    assert WorkerPool(launcher, 2, ledger, Monitor(ledger, watcher), watcher.notice).run(Interrupts()) == "done"
    thread.join()
    assert told(ledger) == told(calm)
    assert len(locations) == 2
    assert all(location.startswith("Ray node ") for location in locations)


def test_ctrl_c_lets_the_tasks_save(tmp_path, nodes, cluster):
    ledger = toy_study(open_storage(cluster.url), toy_space(tmp_path), 40)
    interrupts, watcher = Interrupts(), Watcher()

    press_once_running(ledger, interrupts)
    launcher = launcher_of(tmp_path, ledger.storage, nodes[0])
    assert WorkerPool(launcher, 1, ledger, Monitor(ledger, watcher), watcher.notice).run(interrupts) == "interrupted"
    assert not any(trial.state == "running" for trial in ledger.history())


def test_without_a_cluster_it_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(RunError, match="--on ray: no cluster at") as caught:
        RayLauncher(["true"], {}, {"address": "127.0.0.1:1"}, "toy")
    assert "\n" not in str(caught.value)


def test_a_wrong_number_is_refused():
    with pytest.raises(UserError, match="--engine num_gpus=many: expected a number"):
        RayLauncher(["true"], {}, {"num_gpus": "many"}, "toy")
