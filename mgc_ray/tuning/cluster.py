"""Connect to a Ray cluster, or start one on this machine, without Ray's flood of messages."""

import gc
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mgc_ray
import search_spaces as spaces
from mgc_ray import RequestError
from mgc_ray.data.storage import Exchange
from mgc_ray.terminal.command import console


@contextmanager
def connected(address: str | None = None) -> Iterator[dict[str, float]]:
    """Yield the cluster's resources ("CPU", "GPU", ...); leave the cluster afterwards.

    `address`: as `ray start --address` takes it; None means $RAY_ADDRESS or a cluster of this
    machine's own. Inside another `connected`, or where Ray runs already, that connection is used.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    address = address or os.environ.get("RAY_ADDRESS")
    answers = bool(address) and _answers(str(address))
    asked_to_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",  # None would join a cluster that happens to run here
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address else False,
            runtime_env=_code() if address else None,
        )
    except SystemExit:  # of Ray's own handler of SIGTERM, which it sets first of all
        if callable(asked_to_end):
            asked_to_end(signal.SIGTERM, None)
        raise
    except Exception as error:  # a start that takes too long is a bare Exception of Ray's
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if address is None:
            raise RequestError(
                f"Ray did not start on this machine ({reason}): it may be too busy, or short of "
                "memory or disk; try again, or name a cluster by --address"
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
    _quieten()
    try:
        yield ray.cluster_resources()
    except BaseException as error:
        # Iterators of Ray Data that are left in these frames must end before Ray does, or their end
        # starts Ray anew.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        gc.collect()
        ray.shutdown()


def _code() -> dict[str, Any] | None:
    """This program as it is here, for nodes that have another version of it, or none.

    A driver that `ray job submit` has started came with its code.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    return {"py_modules": [path for module in (mgc_ray, spaces) for path in module.__path__]}


def nodes_without(path: str | Path) -> list[str]:
    """The addresses of the cluster's nodes that do not see a path, as a file or folder of theirs.

    It is looked at by a task on each, as a node of another machine may have a path of that name:
    only what all have is taken to be shared, so make sure that it is the same.
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


def check_shared(exchange: Exchange) -> None:
    """Raise RequestError where tasks would write into a folder that this node does not see."""
    if exchange.storage is None and (blind := nodes_without(exchange.folder)):
        raise RequestError(
            f"all nodes of the cluster must see {exchange.folder}, where results are written, but "
            f"{blind[0]} does not: name a folder on a path that all share by --results (or "
            "--dataset), or a bucket or folder to exchange files by --storage"
        )


def _keep_secret(token: Path) -> None:
    """Let nobody else read a token that Ray has written for all to read."""
    with suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def _answers(address: str) -> bool:
    """Whether something listens there, False for an address without a port.

    Raises RequestError where nothing does: Ray itself tries for two minutes, and says so.
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


def _tell(data: Any, ignore_prefix: bool) -> None:
    """Print what Ray has to say, but for a complaint of Serve's that it was ended as asked."""
    for line in data["lines"]:
        if "ServeController.graceful_shutdown" not in line:
            console.print(f"Ray: {line}", style="dim", markup=False, highlight=False)


def _quieten() -> None:
    import ray._private.worker
    import ray.data

    # of workers and nodes that died; Ray has no setting for it and prints on standard output,
    # which is for results
    ray._private.worker.print_to_stdstream = _tell

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed trial is told by us
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
