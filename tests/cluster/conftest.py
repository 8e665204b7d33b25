"""Services as real processes for the tests of this folder."""

from contextlib import contextmanager

import pytest

from tests.support.cluster import Cluster


@pytest.fixture
def make_cluster(tmp_path):
    """Make clusters below tmp_path, not started yet; see _clusters."""
    with _clusters(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory):
    """Make clusters for all tests of a module, which do not disturb them; see _clusters."""
    with _clusters(tmp_path_factory.mktemp("module")) as make:
        yield make


@contextmanager
def _clusters(directory):
    """Make clusters; end those that still run at the end. What they wrote last is shown where a test fails."""
    made = []

    def make(folder="cluster", **settings):
        cluster = Cluster(directory / folder, **settings)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()
        for service in cluster.services:
            print(f"--- {service.module}", *service.lines[-30:], sep="\n")
