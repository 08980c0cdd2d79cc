"""Connect to a Ray cluster, or start one on this machine, without Ray's flood of messages."""

import gc
import logging
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mgc_ray import RequestError


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
    if address:
        _check_answers(address)
    try:
        ray.init(
            address=address or "local",  # None would join a cluster that happens to run here
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address else False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise _no_cluster(address, str(error).splitlines()[0]) from None
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


def _check_answers(address: str) -> None:
    """Raise RequestError where nothing listens: Ray itself tries for two minutes, and says so."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():  # "auto" or "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _no_cluster(address: str, reason: str) -> RequestError:
    return RequestError(
        f"no Ray cluster answers at {address!r} ({reason}): start one with 'ray start --head' "
        "there, or leave --address and RAY_ADDRESS out to use this machine"
    )


def _quieten() -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
