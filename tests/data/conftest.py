"""A storage of both kinds: a folder, and a bucket behind a real S3 protocol."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgc_ray.data.storage import Storage
from tests.s3 import KEYS, s3_server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


PORT = _free_port()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server("127.0.0.1", PORT) as uri:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield uri


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(str(tmp_path / "storage"))
    uri: str = request.getfixturevalue("bucket")
    return Storage(uri.replace("here", f"here-{tmp_path.name}"))
