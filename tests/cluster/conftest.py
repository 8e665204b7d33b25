"""Services as real processes for the tests of this folder."""

import pytest

from tests.support.cluster import Cluster


@pytest.fixture
def make_cluster(tmp_path):
    """Make clusters below tmp_path, not started yet; what is still running at the end is ended."""
    made = []

    def make(name="cluster", **settings):
        cluster = Cluster(tmp_path / name, **settings)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()
