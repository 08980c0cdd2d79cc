"""Where the server listens."""

import socket

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")


def test_an_address_of_ipv6_has_brackets() -> None:
    from mgc_ray.serving.run import url

    assert url("127.0.0.1", 8000) == "http://127.0.0.1:8000/"
    assert url("::1", 8000) == "http://[::1]:8000/"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port_that_is_in_use_is_refused_and_a_free_one_is_not(host: str) -> None:
    from mgc_ray import RequestError
    from mgc_ray.serving.run import _check_free

    try:
        family, kind, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        used = socket.socket(family, kind)
        used.bind(place)
    except OSError as error:
        pytest.skip(f"{host}: {error}")
    with used:
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(RequestError, match=rf"--host {host} --port {port} must be free"):
            _check_free(host, port)
    _check_free(host, port)


@pytest.mark.parametrize("host", ["no.such.machine.invalid", "8.8.8.8", "::2", "a" * 70, "é" * 70])
def test_an_address_of_no_machine_here_is_refused(host: str) -> None:
    from mgc_ray import RequestError
    from mgc_ray.serving.run import _check_free

    with pytest.raises(RequestError, match=r"must be free to listen on, but it is not \(.+\)"):
        _check_free(host, 8765)


@pytest.mark.parametrize(
    ("count", "on_nodes", "share"),
    [
        (4, [4], 1.0),
        (6, [4], 0.5),
        (9, [4], 1 / 3),
        (2, [4], 1.0),
        (3, [1, 1], 0.5),  # a share of 2/3 would fit once on each node
        (2, [0, 2], 1.0),
        (3, [0, 0], 0.0),
    ],
)
def test_all_replicas_fit(count: int, on_nodes: list[float], share: float) -> None:
    from mgc_ray.serving.run import _share

    assert _share(count, on_nodes) == share
    if share:
        assert sum(int(on_node / share) for on_node in on_nodes) >= count
