"""A cluster of local nodes with one CPU each, until standard input ends.

    python -m benchmarks.scaling.cluster NODES

Prints the cluster's address.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(nodes: int) -> None:
    """Runs the cluster."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 1 << 28}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1, object_store_memory=1 << 28)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
