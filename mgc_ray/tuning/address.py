"""The address of a Ray cluster, checked without loading Ray."""

import os
import socket

from mgc_ray import RequestError


def check_address(address: str) -> str:
    """The cluster that a command is to use: `address`, else $RAY_ADDRESS, else "" (this machine).

    Raises RequestError where nothing listens there: Ray itself would try for two minutes.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():  # "auto" or "local"
        return address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise no_cluster(address, getattr(error, "strerror", None) or str(error)) from None
    return address


def no_cluster(address: str, reason: str) -> RequestError:
    """What is refused where no cluster answers."""
    return RequestError(
        f"no Ray cluster answers at {address!r} ({reason}): start one with 'ray start --head' "
        "there, or leave --address and RAY_ADDRESS out to use this machine"
    )
