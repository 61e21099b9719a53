"""Servers that tests of storages need."""

import pytest
from clusters import cluster_or_skip


@pytest.fixture
def cluster(tmp_path):
    """A PostgreSQL server of its own."""
    cluster = cluster_or_skip(tmp_path / "pg")
    yield cluster
    cluster.stop()


@pytest.fixture
def postgres(cluster):
    """Its URL."""
    return cluster.url
