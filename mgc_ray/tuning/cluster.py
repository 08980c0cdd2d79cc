"""Connect to a Ray cluster, or start one on this machine, without Ray's flood of messages."""

import gc
import logging
import math
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mgc_ray
import search_spaces as spaces
from mgc_ray import RequestError
from mgc_ray.config import ClusterConfig, TuneConfig
from mgc_ray.data.storage import SharedFolder
from mgc_ray.data.waiting import within
from mgc_ray.results import TrialResources
from mgc_ray.terminal.command import console, count_of
from mgc_ray.terminal.stopping import uninterrupted
from mgc_ray.tuning.address import check_address, no_cluster
from mgc_ray.tuning.start import job_config, own_signals, start_ray

_LOOK = 1.0  # seconds between two looks at the cluster's nodes, while none can work
_ANSWER = 20.0  # seconds in which a cluster must answer; Ray itself tries for minutes
_WATCH = 5.0  # the same while they work
# trials that share a GPU: four give 1.9 times as many epochs as one, eight no more (`gru` at the
# size of GTZAN on an H100, tests/benchmarks/gpu.py, part sharing)
_PER_GPU = 4
_SMALLEST_SHARES = 10_000  # of a GPU, in Ray


@dataclass(frozen=True)
class Cluster:
    """A connected Ray cluster and what it has.

    `nodes`: (CPUs, GPUs) of each; () for a single one. A trial runs on one node.
    """

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...] = ()

    def share(self, config: TuneConfig) -> TrialResources:
        """CPUs and GPUs per trial, and how many trials run at the same time.

        Raises RequestError for more than the cluster has, and where it has no CPU.
        """
        if self.cpus < 1:
            raise RequestError(
                f"the cluster must have a CPU for trials, but it has {self.cpus:g}: start a "
                "worker, or wait until one has started"
            )
        gpus = config.gpus_per_trial
        if gpus is None:
            gpus = self._share_of_a_gpu(config.concurrent)
        if gpus > self.gpus:
            raise RequestError(
                f"--gpus-per-trial must be at most the cluster's GPUs ({self.gpus:g}), but it is "
                f"{gpus:g}: leave it out, or give a cluster that has them with --address"
            )
        possible = self.trials_that_fit(1.0, gpus)
        if not possible:
            raise RequestError(
                "a GPU that trials are to use must be on a node that has a CPU too, but none is: "
                "start workers with CPUs, or give --gpus-per-trial 0"
            )
        concurrent = config.concurrent or possible
        if concurrent > self.cpus and not gpus:
            raise RequestError(
                f"--concurrent must be at most the cluster's CPUs ({self.cpus:g}), as each trial "
                f"needs one at least, but it is {concurrent}"
            )
        concurrent = min(concurrent, possible)
        per_trial = int(max(cpus for cpus, _ in self._nodes))
        while per_trial > 1 and self.trials_that_fit(per_trial, gpus) < concurrent:
            per_trial -= 1
        return TrialResources(float(max(1, per_trial)), gpus, concurrent)

    def trials_that_fit(self, cpus: float, gpus: float) -> int:
        """How many trials with so many CPUs and GPUs each can run at the same time."""
        count = 0
        for on_node, gpus_on_node in self._nodes:
            most = on_node // cpus
            if gpus:  # a share is of one GPU: what is left of two is none
                most = min(most, int(gpus_on_node) * math.floor(1 / gpus + 1e-6))
            count += int(most)
        return count

    def _share_of_a_gpu(self, concurrent: int | None) -> float:
        """What lets so many trials run, or as many as together compute the most."""
        whole = int(self.gpus)
        if not whole:
            return 0.0
        per_gpu = math.ceil(concurrent / whole) if concurrent else _PER_GPU
        return math.floor(_SMALLEST_SHARES / per_gpu) / _SMALLEST_SHARES

    @property
    def _nodes(self) -> tuple[tuple[float, float], ...]:
        return self.nodes or ((self.cpus, self.gpus),)


@contextmanager
def ray_cluster(config: ClusterConfig, gpus: float = 0.0) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine; leave it afterwards.

    `config.address`: as `ray start --address` takes it; "" means $RAY_ADDRESS or a cluster on this
    machine. Inside another `ray_cluster`, or where Ray runs already, that connection is used.
    In a cluster that has no CPUs yet, or no node with as many `gpus`, it waits until they join.
    """
    if ray.is_initialized():
        yield cluster_now()
        return
    address = check_address(config.address)
    if address in ("", "local"):
        start_ray()
    else:
        _connect(address)
    with suppress(RuntimeError):  # there is no home folder
        _keep_secret(Path.home() / ".ray" / "auth_token")
    quieten_ray()
    try:
        if address in ("", "local"):
            yield cluster_now()
        else:
            with _workers(address, gpus):
                yield cluster_now()
    except BaseException as error:
        # Iterators of Ray Data that are left in these frames must end before Ray does, or their end
        # starts Ray again.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        with uninterrupted():  # half of Ray's processes would be left
            gc.collect()
            ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a cluster that answers; RequestError with the cause where it does not take us."""
    with tempfile.TemporaryFile() as file:
        try:
            with own_signals(), stderr_into(file):
                if address != "auto" and "://" not in address:
                    with suppress(RayError):  # of which `ray.init` says more
                        within(_ANSWER, GcsClient, address)
                ray.init(
                    address,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    runtime_env=_code(),
                    job_config=job_config(),
                )
        except Exception as error:
            file.seek(0)
            reported = file.read().decode("utf-8", "replace")
            raise _not_taken(address, str(error).strip() or repr(error), reported) from None


@contextmanager
def stderr_into(file: IO[bytes]) -> Iterator[None]:
    """Write there what Ray's C++ libraries print, once for each of twenty attempts."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _not_taken(address: str, raised: str, reported: str) -> RequestError:
    """Why Ray cannot connect to a cluster, from the exception and what was reported before."""
    reason = raised.splitlines()[0]
    if "/runtime_resources/" in raised:  # a folder of a node, into which the program's code goes
        reason = "no node of it runs here"
    if address == "auto":
        return no_cluster(address, reason)
    cluster = f"Ray cluster at {address!r}"
    if "InvalidAuthToken" in reported or "no authentication token was found" in raised:
        return RequestError(
            f"the {cluster} takes only those who have its token (InvalidAuthToken): copy the "
            "head's ~/.ray/auth_token to the same place here, or set RAY_AUTH_TOKEN to its content"
        )
    if "ersion mismatch" in raised:
        return RequestError(
            f"Ray and Python must have the same versions here and in the {cluster}: "
            f"{' '.join(raised.split())}"
        )
    return RequestError(
        f"Ray cannot connect to the {cluster} ({reason}): the command must run on the head or on "
        "a node that has joined it (ray start --address=...); ray status shows its nodes"
    )


def cluster_now() -> Cluster:
    """What the cluster has at this moment."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in resources)
    return Cluster(sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes), nodes)


@contextmanager
def _workers(address: str, gpus: float) -> Iterator[None]:
    """Wait until a node can work; inside, report where none is left, and when one has joined."""
    _wait_for_nodes(address, gpus)
    ended = threading.Event()
    watch = threading.Thread(target=_watch_nodes, args=(address, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _wait_for_nodes(address: str, gpus: float) -> None:
    """Wait until nodes have a CPU, and one of them as many GPUs, where a cluster is still starting.

    A task that needs them also makes a cluster that grows with its work add a node.
    """
    if _can_work(cluster_now(), gpus):
        return
    _say_what_is_missing(address, gpus)
    task = ray.remote(lambda: None).options(num_cpus=1, num_gpus=gpus).remote()
    while not _can_work(cluster := cluster_now(), gpus):
        time.sleep(_LOOK)
    ray.cancel(task)
    _say_that_nodes_joined(cluster)


def _watch_nodes(address: str, ended: threading.Event) -> None:
    missing = False
    while not ended.wait(_WATCH):
        with suppress(Exception):  # the head does not answer: whoever uses it reports that
            cluster = cluster_now()
            if missing and _can_work(cluster):
                _say_that_nodes_joined(cluster)
            elif not missing and not _can_work(cluster):
                _say_what_is_missing(address)
            missing = not _can_work(cluster)


def _can_work(cluster: Cluster, gpus: float = 0.0) -> bool:
    return cluster.cpus >= 1 and max(on_node for _, on_node in cluster.nodes) >= gpus


def _say_what_is_missing(address: str, gpus: float = 0.0) -> None:
    what = f"GPUs (--gpus-per-trial {gpus:g})" if gpus else "CPUs"
    console.print(
        f"waiting for a node with {what} to join the cluster at {address}; Ctrl-C ends this",
        style="yellow",
        markup=False,
    )


def _say_that_nodes_joined(cluster: Cluster) -> None:
    gpus = f" and {count_of(int(cluster.gpus), 'GPU')}" if cluster.gpus else ""
    cpus = count_of(int(cluster.cpus), "CPU")
    console.print(f"the cluster has {cpus}{gpus} now: continuing", markup=False)


def _code() -> dict[str, Any] | None:
    """This program as it is here, for nodes that have another version of it, or none.

    A driver that `ray job submit` has started comes with its code.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"py_modules": [path for module in (mgc_ray, spaces) for path in module.__path__]}


def nodes_without(path: str | Path) -> list[str]:
    """The addresses of the cluster's nodes that do not see a path, as a file or folder of theirs.

    A task on each looks for it. A node of another machine may have a path of the same name: what
    all have is taken to be shared, so make sure that it is the same.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return []

    @ray.remote(num_cpus=0)
    def sees() -> bool:
        return os.path.exists(path)

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in nodes if node["NodeID"] != here]
    tasks = {
        node["NodeManagerAddress"]: sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in others
    }
    blind = []
    for address, task in tasks.items():
        with suppress(RayError):  # the node has left since
            if not ray.get(task):
                blind.append(address)
    return blind


def check_shared(shared: SharedFolder) -> None:
    """Raise RequestError where tasks would write into a folder that this node does not see."""
    if shared.storage is None and (blind := nodes_without(shared.folder)):
        raise RequestError(
            f"all nodes of the cluster must see {shared.folder}, where results are written, but "
            f"{blind[0]} does not: give a folder on a path that all share by --results (or "
            "--dataset), or a bucket or folder for exchanging files by --storage"
        )


def _keep_secret(token: Path) -> None:
    """Let nobody else read a token that Ray has written readable for everyone."""
    with suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def _print(data: Any, ignore_prefix: bool) -> None:
    """Print Ray's messages, except Serve's complaint about an end that was asked for."""
    for line in data["lines"]:
        if "ServeController.graceful_shutdown" not in line:
            console.print(f"Ray: {line}", style="dim", markup=False, highlight=False)


def quieten_ray() -> None:
    """Send Ray's messages to standard error, and only those that matter."""
    import ray._private.worker
    import ray.data

    # about workers and nodes that died; Ray has no setting for it and prints on standard output,
    # which is for results
    ray._private.worker.print_to_stdstream = _print

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(
        logging.CRITICAL
    )  # failed trials are reported by this program
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
