"""A Ray cluster of this machine, held by a process of its own and told what to do by lines.

    python tests/ray_nodes.py LOOPBACK BYTES     # prints the address; `add` prints a node's id, `kill ID` an empty line

A process of pytest may be too large to be forked, as Ray does to start its parts. The cluster ends with the input.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Serve until the input ends."""
    from ray.cluster_utils import Cluster

    shape = {"num_cpus": 1, "object_store_memory": int(sys.argv[2]), "node_ip_address": sys.argv[1]}
    cluster = Cluster(initialize_head=True, head_node_args={**shape, "include_dashboard": False})
    nodes = {}
    try:
        print(f"said {cluster.address}", flush=True)
        for line in sys.stdin:
            word, _, name = line.strip().partition(" ")
            if word == "add":
                node = cluster.add_node(**shape)
                cluster.wait_for_nodes()
                nodes[node.node_id] = node
                print(f"said {node.node_id}", flush=True)
            else:
                cluster.remove_node(nodes.pop(name), allow_graceful=False)
                print("said ", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
