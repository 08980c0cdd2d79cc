"""Start and stop the replicas on a cluster, or on one of this machine's own."""

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve

from mgc_ray import RequestError
from mgc_ray.ensembling.artefact import Ensemble
from mgc_ray.serving.app import Classifier, Limits
from mgc_ray.tuning.cluster import connected

_APP = "mgc_ray"


@contextmanager
def serving(
    ensemble: Ensemble,
    host: str,
    port: int,
    replicas: int | None,
    limits: Limits,
    address: str | None = None,
) -> Iterator[int]:
    """Serve inside the block; yields how many replicas there are.

    Raises RequestError where the port is taken.
    """
    _check_free(host, port)
    with connected(address) as resources:
        gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
        count = replicas or gpus or cpus
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(
                http_options={"host": host, "port": port, "request_timeout_s": 2 * limits.timeout},
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )
            deployment = Classifier.options(  # type: ignore[attr-defined]
                num_replicas=count,
                ray_actor_options={
                    "num_cpus": 0 if gpus else min(1.0, cpus / count),
                    "num_gpus": min(1.0, gpus / count) if gpus else 0,
                },
            )
            threads = max(1, cpus // count)
            # a list, as Serve would fetch the model itself and send it to each replica by value
            serve.run(
                deployment.bind(
                    [ray.put(ensemble)], limits, threads, math.ceil(limits.queue / count)
                ),
                name=_APP,
                route_prefix="/",
            )
            yield count
        finally:
            serve.shutdown()


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestError(
                f"--host {host} --port {port} cannot be listened on ({error.strerror}): name others"
            ) from None
