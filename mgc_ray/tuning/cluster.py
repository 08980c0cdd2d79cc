"""Connect to a Ray cluster, or start one on this machine, without Ray's flood of messages."""

import gc
import logging
import math
import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mgc_ray
import search_spaces as spaces
from mgc_ray import RequestError
from mgc_ray.config import ClusterConfig, TuneConfig
from mgc_ray.data.storage import SharedFolder
from mgc_ray.results import TrialResources
from mgc_ray.terminal.command import console


@dataclass(frozen=True)
class Cluster:
    """A connected Ray cluster and what it has."""

    cpus: float
    gpus: float

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
            gpus = 1.0 if self.gpus >= 1 else 0.0
        if gpus > self.gpus:
            raise RequestError(
                f"--gpus-per-trial must be at most the cluster's GPUs ({self.gpus:g}), but it is "
                f"{gpus:g}: leave it out, or give a cluster that has them with --address"
            )
        if gpus > 0:
            possible = int(min(math.floor(self.gpus / gpus), self.cpus))
            return TrialResources(1.0, gpus, min(config.concurrent or possible, possible))
        concurrent = config.concurrent or int(self.cpus)
        if concurrent > self.cpus:
            raise RequestError(
                f"--concurrent must be at most the cluster's CPUs ({self.cpus:g}), as each trial "
                f"needs one at least, but it is {concurrent}"
            )
        return TrialResources(float(max(1, int(self.cpus // concurrent))), 0.0, concurrent)


@contextmanager
def ray_cluster(config: ClusterConfig) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine; leave it afterwards.

    `config.address`: as `ray start --address` takes it; "" means $RAY_ADDRESS or a cluster on this
    machine. Inside another `ray_cluster`, or where Ray runs already, that connection is used.
    """
    if ray.is_initialized():
        yield _cluster()
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    answers = bool(address) and _answers(str(address))
    asked_to_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",  # "auto" would join a cluster that happens to run here
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address else False,
            runtime_env=_code() if address else None,
        )
    except SystemExit:  # of Ray's own handler of SIGTERM, which it sets first of all
        if callable(asked_to_end):
            asked_to_end(signal.SIGTERM, None)
        raise
    except Exception as error:  # a start that takes too long is a bare Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if address is None:
            raise RequestError(
                f"Ray did not start on this machine ({reason}): it may be too busy, or short of "
                "memory or disk; try again, or give a cluster by --address"
            ) from None
        if not answers:
            raise _no_cluster(address, reason) from None
        raise RequestError(
            f"something answers at {address!r}, but Ray cannot connect to it ({reason}): make sure "
            "that the token here (~/.ray/auth_token or RAY_AUTH_TOKEN) is the head's, and that Ray "
            "and Python have the same versions there"
        ) from None
    if callable(asked_to_end) and threading.current_thread() is threading.main_thread():
        # Ray has set one that kills all of its processes first, and one that aborts this process
        signal.signal(signal.SIGTERM, asked_to_end)
    _keep_secret(Path.home() / ".ray" / "auth_token")
    quieten_ray()
    try:
        yield _cluster()
    except BaseException as error:
        # Iterators of Ray Data that are left in these frames must end before Ray does, or their end
        # starts Ray again.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        gc.collect()
        ray.shutdown()


def _cluster() -> Cluster:
    resources = ray.cluster_resources()
    return Cluster(resources.get("CPU", 0), resources.get("GPU", 0))


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
    seen = ray.get(
        [
            sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote()
            for node in others
        ]
    )
    return [node["NodeManagerAddress"] for node, see in zip(others, seen, strict=True) if not see]


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


def _answers(address: str) -> bool:
    """Whether something listens there, False for an address without a port.

    Raises RequestError where nothing does: Ray itself would try for two minutes.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():  # "auto" or "local"
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None
    return True


def _no_cluster(address: str, reason: str) -> RequestError:
    return RequestError(
        f"no Ray cluster answers at {address!r} ({reason}): start one with 'ray start --head' "
        "there, or leave --address and RAY_ADDRESS out to use this machine"
    )


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
