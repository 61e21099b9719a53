"""What all tests share: the tiers that mark them, their order, a PostgreSQL server, and signals as in a shell."""

import gc
import logging
import os
import signal
from pathlib import Path

import pytest

from tests.support.postgres import missing, temporary_cluster

ROOT = Path(__file__).parents[1]
# Where tests are not fast, and why: the longest path that fits decides. All others are marked `fast`.
TIERS = {
    "tests/architecture/test_wheel.py": "process",
    "tests/bench": "slow",
    "tests/cli/commands": "process",
    "tests/cli/commands/test_dashboard.py": "browser",
    "tests/cli/test_completion.py": "process",
    "tests/cli/test_parser.py": "process",
    "tests/search/execution/launchers": "cluster",
    "tests/search/execution/test_worker.py": "process",
    "tests/search/execution/test_worker_pool.py": "process",
    "tests/search/simulation/test_comparison.py": "slow",
    "tests/search/simulation/test_simulator.py": "slow",
    "tests/search/storage/test_database.py": "process",
    "tests/tmsearch/api": "process",
    "tests/tmsearch/evaluation/test_comparison.py": "slow",
    "tests/tmsearch/export": "process",
    "tests/tmsearch/model/test_whisper.py": "process",
    "tests/tmsearch/report/test_page.py": "browser",
    "tests/tmsearch/test_hub.py": "process",
}

# The files that take longest, from a minute and more down to ten seconds. Where several workers share the tests none of
# these is to begin when the others have nothing left to do.
LONGEST = (
    "tests/cli/commands/test_run.py",
    "tests/search/execution/test_worker.py",
    "tests/cli/commands/test_confirm.py",
    "tests/cli/commands/test_workers.py",
    "tests/search/execution/test_worker_pool.py",
    "tests/search/execution/launchers/test_slurm.py",
    "tests/search/execution/launchers/test_ray.py",
    "tests/search/storage/test_database.py",
    "tests/tmsearch/training/test_train.py",
    "tests/bench/test_gpu_model.py",
    "tests/bench/test_memory_promise.py",
    "tests/tmsearch/model/test_whisper.py",
    "tests/cli/commands/test_status.py",
    "tests/search/storage/test_ledger.py",
    "tests/search/execution/test_child_process.py",
    "tests/search/execution/test_slow_link.py",
)
LISTENED_TO = ("transformers", "optuna", "datasets", "tmsearch", "search")  # loggers whose lines tests look for

# Two pytest workers on two cores have no core to spare for threads that burn one while they wait: torch's are to sleep
# soon, with the product's own value, and OpenBLAS is to have one alone. Read as the libraries are loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell starts background jobs with SIGINT ignored, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def tier_of(item: pytest.Item) -> str:
    """The tier of one test: `database` where it asks for a server, else what TIERS says of its file, else `fast`."""
    if {"cluster", "postgres"} & set(getattr(item, "fixturenames", ())):
        return "database"
    path = item.path.relative_to(ROOT)
    for candidate in (path, *path.parents):
        if candidate.as_posix() in TIERS:
            return TIERS[candidate.as_posix()]
    return "fast"


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep the order below: its own begins with the files of most tests, which are quick ones."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test with its tier, so that `pytest -m fast` and its like select by it; for workers, order them."""
    turns: dict[Path, tuple[int, bool]] = {}
    for item in items:
        tier = tier_of(item)
        item.add_marker(tier)
        path = item.path.relative_to(ROOT).as_posix()
        rank = LONGEST.index(path) if path in LONGEST else len(LONGEST)
        turns.setdefault(item.path, (rank, tier == "fast"))
    if hasattr(config, "workerinput"):  # one of pytest-xdist's workers
        items.sort(key=lambda item: turns[item.path])


def pytest_collection_finish() -> None:
    """What is imported by now stays: without it each sweep for garbage in a test would go through a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def loggers_stay_enabled():
    """No test leaves a library's logger disabled: the tests after it would hear nothing, in some orders of tests."""
    loggers = [logging.getLogger(name) for name in LISTENED_TO]
    yield
    disabled = [logger for logger in loggers if logger.disabled]
    for logger in disabled:
        logger.disabled = False
    assert not disabled, f"this test disabled {disabled}"


@pytest.fixture
def cluster():
    """A PostgreSQL server of its own, for tests that stop it or look at the whole of it."""
    why = missing()
    if why:
        pytest.skip(why)
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_cluster():
    """A server of all tests of this process."""
    why = missing()
    if why:
        pytest.skip(why)
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres(shared_cluster):
    """The URL of a database of its own; what is still connected to it at the end is cut off."""
    with shared_cluster.new_database() as url:
        yield url
