"""The server in a process of its own, and songs that are sent to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_START_SECONDS = 120
_STOPPED_BY = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextmanager
def running_server(
    *options: str, stop: signal.Signals = signal.SIGINT, host: str = "", token: str = ""
) -> Iterator[str]:
    """`python -m mgc_ray.serve OPTIONS` from when it says that it serves; yields its address.

    `token`: the environment's. Afterwards it is stopped by the signal `stop`, and must end in
    order.
    """
    port = _free_port()
    listening = ["--port", str(port), *(["--host", host] if host else [])]
    address = f"http://{f'[{host}]' if ':' in host else host or '127.0.0.1'}:{port}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "printed"
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        env |= {"MGC_RAY_TOKEN": token} if token else {}
        with file.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "mgc_ray.serve", *listening, *options],
                stderr=stderr,
                start_new_session=True,
                # a signal that this process ignores would be ignored there too
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                env=env,
            )
        try:
            _wait_until_printed(process, file, f"serving {address}/ with ")
            urlopen(f"{address}/healthz", timeout=5).close()
            yield address
        finally:
            process.send_signal(stop)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        printed = file.read_text()
    assert process.returncode == 0, printed
    assert printed.splitlines()[-1] == f"stopped by {_STOPPED_BY[stop]}"
    assert "Traceback" not in printed


def form_of(name: str, content: bytes) -> tuple[bytes, str]:
    """A form with one file in the field `file`: its body and its Content-Type."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def post_song(
    address: str, name: str, content: bytes, query: str = "", token: str = ""
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the response to `POST /predict`."""
    body, content_type = form_of(name, content)
    headers = {"Content-Type": content_type}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{address}/predict{query}", body, headers)
    try:
        with urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        text = error.read().decode()
        try:
            return error.code, json.loads(text)
        except json.JSONDecodeError:
            return error.code, {"detail": text}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_printed(process: subprocess.Popen[bytes], file: Path, text: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while text not in (printed := file.read_text()):
        assert process.poll() is None, printed
        assert time.monotonic() < deadline, printed
        time.sleep(0.1)
