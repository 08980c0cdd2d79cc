"""Start and stop the replicas, on a cluster or on this machine."""

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import serve

from mgc_ray import RequestError
from mgc_ray.config import ClusterConfig, ServeConfig
from mgc_ray.ensembling.saved import Ensemble
from mgc_ray.models import own_families
from mgc_ray.serving.access import token_digest
from mgc_ray.serving.app import Replica, ReplicaConfig
from mgc_ray.serving.metrics import Totals
from mgc_ray.tuning.cluster import ray_cluster

_APP = "mgc_ray"


@contextmanager
def serving(ensemble: Ensemble, config: ServeConfig, token: str = "") -> Iterator[tuple[str, int]]:
    """Serve inside the block; yields the address and the number of replicas.

    `token`: what requests must have; "" for none.

    Raises RequestError where the port is taken.
    """
    config = replace(config, host=config.host.removeprefix("[").removesuffix("]"))
    _check_free(config.host, config.port)
    with ray_cluster(ClusterConfig(address=config.address)) as cluster:
        gpus, cpus = int(cluster.gpus), max(1, int(cluster.cpus))
        count = config.replicas or gpus or cpus
        of_a_gpu = _share(count, [on_node for _, on_node in cluster.nodes])
        of_a_cpu = 0.0 if of_a_gpu else _share(count, [on_node for on_node, _ in cluster.nodes])
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(
                http_options={
                    "host": config.host,
                    "port": config.port,
                    "request_timeout_s": 2 * config.timeout,
                },
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )
            deployment = Replica.options(  # type: ignore[attr-defined]
                num_replicas=count,
                ray_actor_options={"num_cpus": of_a_cpu, "num_gpus": of_a_gpu},
            )
            # a song is received and predicted within twice the timeout
            totals: Any = ray.remote(Totals).options(num_cpus=0, max_restarts=-1)
            replica = ReplicaConfig(
                serve=config,
                own_families=own_families(),
                threads=max(1, cpus // count),
                waiting=math.ceil(config.queue / count),
                token_digest=token_digest(token),
                totals=totals.remote(count, config.queue, 2 * config.timeout + 1),
            )
            # a list, as Serve would fetch the model itself and send it to each replica by value
            serve.run(deployment.bind([ray.put(ensemble)], replica), name=_APP, route_prefix="/")
            yield url(config.host, config.port), count
        finally:
            serve.shutdown()


def _share(count: int, on_nodes: Sequence[float]) -> float:
    """The largest share of a CPU or GPU with which so many replicas fit; 0 where there is none.

    One that does not fit would be waited for, for ever.
    """
    whole = sum(int(on_node) for on_node in on_nodes)
    return 1 / math.ceil(count / whole) if whole else 0.0


def url(host: str, port: int) -> str:
    """The address of the page; of IPv6 with brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a machine
        raise RequestError(
            f"--host {host} --port {port} must be free to listen on, but it is not "
            f"({getattr(error, 'strerror', None) or error}): give others"
        ) from None
