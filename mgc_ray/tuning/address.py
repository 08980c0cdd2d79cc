"""The address of a Ray cluster, checked without loading Ray."""

import os
import socket
from importlib.util import find_spec

from mgc_ray import RequestError

_BY_RAY = ("", "auto", "local")  # Ray finds the cluster, or starts one here
_SECONDS = 5.0
# how a client of gRPC, which is HTTP/2, begins; a server begins with a frame of the same type, 4
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def check_address(address: str) -> str:
    """The cluster that a command is to use: `address`, else $RAY_ADDRESS, else "" (this machine).

    Raises RequestError for what is no address, where nothing listens or something else than Ray
    (Ray itself would try for minutes), and on Windows.
    """
    if find_spec("fcntl") is None:
        raise RequestError(
            "this needs Ray, which works for it on Linux and macOS alone: on Windows, use the "
            "Windows Subsystem for Linux (wsl --install), or what needs no Ray, such as train, "
            "predict without --out, and evaluate"
        )
    given = address or os.environ.get("RAY_ADDRESS", "")
    if given in _BY_RAY:
        return given
    host, _, port = given.removeprefix("ray://").rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdigit() or int(port) > 65_535 or (":" in host and bare == host):
        option = "--address" if address else "RAY_ADDRESS"
        raise RequestError(
            f"{option} must be HOST:PORT of a Ray cluster, e.g. ray-head:6379, but it is {given!r}"
        )
    try:
        with socket.create_connection((bare, int(port)), timeout=_SECONDS) as server:
            speaks = _speaks_grpc(server)
    except OSError as error:
        raise no_cluster(given, error.strerror or str(error)) from None
    if not speaks:
        raise RequestError(
            f"what answers at {given!r} is no Ray cluster: give the port of 'ray start --head', "
            "which is 6379 if no other was chosen (8265 is that of its web page)"
        )
    return given


def _speaks_grpc(server: socket.socket) -> bool:
    if os.environ.get("RAY_USE_TLS") == "1":
        return True  # not to be told from others without its certificates
    try:
        server.sendall(_GREETING)
        answer = server.recv(9)
    except OSError:  # it closes the connection, or waits for something else
        return False
    return answer[3:4] == _GREETING[-6:-5]


def no_cluster(address: str, reason: str) -> RequestError:
    """What is refused where no cluster answers."""
    from_environment = address == os.environ.get("RAY_ADDRESS")
    other_way = "unset RAY_ADDRESS" if from_environment else "leave --address out"
    return RequestError(
        f"no Ray cluster answers at {address!r} ({reason}): start one with 'ray start --head' "
        f"there, or {other_way} to use this machine"
    )
