"""A Ray cluster of two machines, simulated here by two nodes with one processor each."""

import time
from contextlib import contextmanager
from pathlib import Path

SIZE = {"num_cpus": 1, "object_store_memory": 100 << 20}
PATIENCE = 5  # seconds for which Ray waits for a head to come back; as it comes, 60
SETTINGS = {"gcs_rpc_server_reconnect_timeout_s": PATIENCE, "worker_niceness": 0}  # 15: starves beside other tests
HEAD = {**SIZE, "include_dashboard": False, "_system_config": SETTINGS}


class Machines:
    """The cluster; each machine can be lost: the second is replaced, without its head there has to be a new cluster.

    Attributes:
        cluster: of Ray.
        second: the machine that is not its head.
    """

    def __init__(self):
        self.begin()

    def begin(self):
        """Start a cluster."""
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        self.second = self.cluster.add_node(**SIZE)

    @property
    def address(self):
        """What `--address` takes."""
        return self.cluster.address

    def lose_one(self):
        """Kill the second machine, and let another join."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self.cluster.add_node(**SIZE)

    def lose_head(self):
        """Kill the head, without which the cluster is none."""
        self.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def begin_anew(self):
        """Start a new cluster instead of what is left of this one."""
        self.cluster.shutdown()
        self.begin()

    def quiet(self, seconds):
        """Wait until no process is at a run; returns whether so."""
        deadline = time.monotonic() + seconds
        while self.workers() and time.monotonic() < deadline:
            time.sleep(0.2)
        return not self.workers()

    def workers(self):
        """Return the processes that are at a run."""
        raylets = [process.process.pid for node in self.cluster.list_all_nodes()
                   for process in node.all_processes["raylet"]]  # fmt: skip
        below = [child for raylet in raylets for child in children(raylet)]
        return [child for child in below if name(child).startswith("ray::_run")]


@contextmanager
def two():
    """Start them for a block."""
    machines = Machines()
    try:
        yield machines
    finally:
        machines.cluster.shutdown()


def children(process):
    """Return the processes below one, itself excluded."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [process]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found


def name(process):
    """Return the command of a process; "" if it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
