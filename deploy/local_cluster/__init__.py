"""The services of eventlog as background processes of one machine, for development, tests and the demo.

`python -m deploy.local_cluster up | down | status` is what `make up`, `make down` and `make status` call;
`LocalCluster` is the same for programs. Linux only: processes are told apart by /proc.
"""

from deploy.local_cluster.cluster import SERVICES, ClusterFailed, LocalCluster, ServiceState

__all__ = ["SERVICES", "ClusterFailed", "LocalCluster", "ServiceState"]
