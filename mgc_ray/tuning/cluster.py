"""Connect to a Ray cluster, or start one on this machine, without Ray's flood of messages."""

import logging
import os
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
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address else False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise RequestError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}): start one with "
            "'ray start --head' there, or leave --address and RAY_ADDRESS out to use this machine"
        ) from None
    _quieten()
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _quieten() -> None:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
