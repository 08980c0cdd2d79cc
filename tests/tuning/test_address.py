"""Addresses of clusters, checked before Ray is loaded."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from mgc_ray import RequestError
from mgc_ray.tuning.address import check_address

if TYPE_CHECKING:
    from mgc_ray.tuning.cluster import Cluster


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refusal(address: str = "") -> str:
    with pytest.raises(RequestError) as error:
        check_address(address)
    return str(error.value)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_what_ray_finds_itself_is_not_checked(address: str) -> None:
    assert check_address(address) == address


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that reads something and answers; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # it was closed
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_the_address_of_a_cluster_is_taken(
    ray_cluster: "Cluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from the environment."""
    import ray

    address = ray.get_runtime_context().gcs_address
    assert check_address(address) == address
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert check_address("") == address


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_what_is_no_ray_is_refused(answer: bytes) -> None:
    """As the dashboard, whose address is often taken for the cluster's."""
    with answering(answer) as address:
        assert refusal(address).startswith(f"what answers at {address!r} is no Ray cluster: give")


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "head:65536", "::1"])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = f"must be HOST:PORT of a Ray cluster, e.g. ray-head:6379, but it is {address!r}"
    assert refusal(address) == f"--address {rule}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refusal() == f"RAY_ADDRESS {rule}"


def test_where_nothing_listens_the_remedy_fits_what_gave_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = "no Ray cluster answers at '127.0.0.1:9' (Connection refused): start one with"
    head = "'ray start --head' there"
    assert refusal("127.0.0.1:9") == f"{begin} {head}, or leave --address out to use this machine"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert refusal() == f"{begin} {head}, or unset RAY_ADDRESS to use this machine"
    assert refusal("[::1]:9").startswith("no Ray cluster answers at '[::1]:9' (")


def test_what_greets_like_a_cluster_and_then_is_silent_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that is frozen; Ray itself would try for minutes."""
    from mgc_ray.tuning import cluster

    monkeypatch.setattr(cluster, "_ANSWER", 2.0)
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    kept[-1].sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))

        threading.Thread(target=greet, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert check_address(address) == address
        with pytest.raises(RequestError, match=r"Ray cannot connect to .* \(no answer for 2 s\)"):
            cluster._connect(address)
