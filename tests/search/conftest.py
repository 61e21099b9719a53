"""Servers that tests of storages need."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.postgres import Cluster, missing


@pytest.fixture
def cluster():
    """A PostgreSQL server of its own; not in pytest's folders, which another pytest shuts for other users."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="tmsearch-"))
    cluster = Cluster(folder / "pg")
    yield cluster
    cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(cluster):
    """Its URL."""
    return cluster.url
