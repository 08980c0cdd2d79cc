"""An S3 server on this machine: the real protocol, objects in memory; and one with faults."""

import http.client
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


_DENIED_SECONDS, _SLOW_SECONDS = 4.0, 5.0


class FaultyS3(ThreadingHTTPServer):
    """Stands before an S3 server and passes requests on, but for `faults` of those that come.

    `fault`: an HTTP status to answer with; "silence", to answer nothing; "torn", to send half of
    what the other answers; "cut", to close the connection within a request; "slow", to wait before
    it answers; "" for none. `faults`: of how many requests, then it passes all on. `seen` has the
    method and path of all requests, `failed` how often each fault was made.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port  # of the other
        self.fault: int | str = ""
        self.faults = 0
        self.only = ""  # methods; all where it is empty
        self.seen: list[tuple[str, str]] = []
        self.failed: Counter[int | str] = Counter()
        self._draw: random.Random | None = None
        self._share = 0.0
        self._denied_until = 0.0
        self._one = threading.Lock()
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def fail(self, fault: int | str, requests: int = 1_000_000, only: str = "") -> None:
        self.fault, self.faults, self.only = fault, requests, only

    def fail_at_random(self, seed: int, share: float) -> None:
        """From now on let a share of all requests fail, each in one of all ways."""
        self._draw, self._share = random.Random(seed), share

    def next_fault(self, method: str) -> int | str:
        """What is done to a request that comes."""
        with self._one:
            fault: int | str = ""
            if self.faults > 0 and (not self.only or method in self.only.split()):
                self.faults -= 1
                fault = self.fault
            elif time.monotonic() < self._denied_until:
                fault = 403
            elif self._draw and self._draw.random() < self._share:
                fault = self._draw.choice([500, 503, 403, "silence", "torn", "cut", "slow"])
                if fault == 403:  # as until a key has been renewed
                    self._denied_until = time.monotonic() + _DENIED_SECONDS
            if fault:
                self.failed[fault] += 1
            return fault

    def uri(self, folder: str) -> str:
        return f"s3://music/{folder}?scheme=http&endpoint_override=127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: the client has gone."""

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


_OF_A_CONNECTION = ("connection", "transfer-encoding", "server", "date", "expect")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def _answer(self) -> None:
        server = self.server
        server.seen.append((self.command, self.path))
        fault = server.next_fault(self.command)
        if fault == "slow":
            server.ended.wait(_SLOW_SECONDS)
        if fault == "silence":
            server.ended.wait(300)
            self.close_connection = True
            return
        if fault == "cut":
            self.rfile.read(int(self.headers.get("Content-Length", 20)) // 2)
            self.close_connection = True
            return
        body = self._body()
        if isinstance(fault, int):
            code = {403: "ExpiredToken", 500: "InternalError", 503: "SlowDown"}[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            self._send(fault, {"Content-Type": "application/xml"}, text.encode())
            return
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        sent = {n: v for n, v in self.headers.items() if n.lower() not in _OF_A_CONNECTION}
        connection.request(self.command, self.path, body, sent)
        answer = connection.getresponse()
        content = answer.read()
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in _OF_A_CONNECTION
        }
        if fault == "torn" and content:
            self.send_response(answer.status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self._send(answer.status, headers, content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        length = {name.lower(): value for name, value in headers.items()}.get("content-length")
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        head = self.command == "HEAD"
        self.send_header("Content-Length", (length or "0") if head else str(len(content)))
        self.end_headers()
        if not head:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

    def finish(self) -> None:
        with suppress(OSError):  # the client has gone
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
