"""An S3 server on this machine: the real protocol, objects in memory."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

KEYS = {  # what its users need in the environment
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(host: str, port: int) -> Iterator[str]:
    """The URI of a folder in its bucket, for those who reach this machine as `host`."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="music")
                break
            except Exception:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield f"s3://music/here?scheme=http&endpoint_override={host}:{port}"
    finally:
        process.kill()
        process.wait()
