"""The server as programs and people use it: real HTTP, real songs, a real browser."""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile

from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
from tests.commands import command

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def started(port: int, *options: str) -> subprocess.Popen[str]:
    """`python -m mgc_ray.serve`, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.serve", "--port", str(port), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a signal that the tests' own process ignores would be ignored there too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return process
        except OSError:
            time.sleep(0.3)
    process.kill()
    raise AssertionError("it does not answer")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    port = free_port()
    process = started(port, "--max-megabytes", "3", "--max-seconds", "60", "--replicas", "1")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
        assert "Traceback" not in said


def post(address: str, name: str, content: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
    """What the server says of a file: status and answer."""
    border = uuid.uuid4().hex
    head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    try:
        with urlopen(Request(f"{address}/predict{query}", body, kind), timeout=120) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        text = error.read().decode()
        try:
            return error.code, json.loads(text)
        except json.JSONDecodeError:
            return error.code, {"detail": text}


def song(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 22050))
    soundfile.write(path, samples, 22050)
    return path


def test_it_answers_what_predict_says(server: str, tmp_path: Path) -> None:
    path = song(tmp_path / "noise.wav", 40.0)
    status, answer = post(server, "noise.wav", path.read_bytes(), "?picture=true")
    assert status == 200
    expected = load_ensemble(shipped_model()).predict(path)
    assert list(answer["genres"]) == list(expected)
    for genre, share in expected.items():
        assert answer["genres"][genre] == pytest.approx(share, abs=2e-6)
    assert answer["seconds"] == 40.0
    assert answer["parts"][0]["start"] == 0
    assert answer["parts"][-1]["end"] == pytest.approx(40.0, abs=0.02)
    for part in answer["parts"]:
        assert sum(part["genres"].values()) == pytest.approx(1, abs=1e-4)
    assert answer["picture"].startswith("data:image/png;base64,")


def test_it_describes_itself(server: str) -> None:
    with urlopen(f"{server}/openapi.json", timeout=20) as answer:
        described = json.load(answer)
    assert set(described["paths"]) == {"/health", "/model", "/predict"}
    assert set(described["paths"]["/predict"]["post"]["responses"]) >= {"200", "413", "415", "503"}
    with urlopen(f"{server}/model", timeout=20) as answer:
        about = json.load(answer)
    assert len(about["genres"]) == 10
    assert about["trained_on"]
    assert about["limits"]["megabytes"] == 3


@pytest.mark.parametrize(
    ("name", "content", "status", "reason"),
    [
        ("text.mp3", b"no sound", 415, "text.mp3 cannot be used: not audio, or corrupt"),
        ("empty.wav", b"", 415, "empty.wav cannot be used"),
        ("large.wav", bytes(3_100_000), 413, "a file may have 3 MB at most"),
        ("../../evil.wav", b"no sound", 415, "evil.wav cannot be used"),
        ("array.npy", b"\x93NUMPY", 415, "array.npy cannot be used"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(
    server: str, name: str, content: bytes, status: int, reason: str
) -> None:
    found, answer = post(server, name, content)
    assert found == status, answer
    assert answer["detail"].startswith(reason)


def test_a_song_that_is_too_long_is_refused(server: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(8000 * 61, 0.1), 8000)
    status, answer = post(server, "long.wav", (tmp_path / "long.wav").read_bytes())
    assert status == 413
    assert answer["detail"].startswith("a song may be 60 s long at most")


_FIELD = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.wav"\r\n\r\nab\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "reason"),
    [
        (
            "application/x-www-form-urlencoded",
            b"",
            422,
            "of the field `file` there is none: send one",
        ),
        (
            "audio/mpeg",
            b"ID3\x04\x00\xff\xfb\x90",
            422,
            "of the field `file` there is none: send one",
        ),
        (
            "multipart/form-data; boundary=x",
            b"\xff\xfbno form",
            400,
            "Invalid multipart data: send one",
        ),
        (
            "multipart/form-data; boundary=x",
            _FIELD % b"song" + b"--x--\r\n",
            422,
            "of the field `file` there is none",
        ),
        (
            "multipart/form-data; boundary=x",
            2 * (_FIELD % b"file") + b"--x--\r\n",
            422,
            "of the field `file` there are several: send one",
        ),
    ],
    ids=["nothing", "no form", "broken form", "other field", "two files"],
)
def test_a_request_that_is_no_form_with_one_song_is_told_how(
    server: str, kind: str, body: bytes, status: int, reason: str
) -> None:
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{server}/predict", body, {"Content-Type": kind}), timeout=20)
    assert error.value.code == status
    said = json.load(error.value)["detail"]
    assert said.startswith(reason)
    assert "curl -F file=@song.mp3" in said


def test_an_endless_file_is_refused_before_its_end(server: str) -> None:
    port, sent, answer = int(server.rsplit(":", 1)[1]), 0, b""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        block = head + bytes(2**20)
        while not answer and sent < 1e9:
            connection.sendall(b"%x\r\n%s\r\n" % (len(block), block))
            sent += len(block)
            readable, _, _ = select.select([connection], [], [], 0.02)
            answer = connection.recv(2**12) if readable else b""
            block = bytes(2**20)
    assert b" 413 " in answer.splitlines()[0]
    assert sent < 250e6


def test_it_listens_on_this_machine_alone(server: str) -> None:
    port = int(server.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as file:
        listening = [line.split()[1] for line in file if line.split()[3] == "0A"]
    assert [where for where in listening if where.endswith(f":{port:04X}")] == [
        f"0100007F:{port:04X}"
    ]


def test_too_many_at_once_are_refused_and_all_others_answered(tmp_path: Path) -> None:
    port = free_port()
    process = started(port, "--replicas", "1", "--queue", "2")
    content = song(tmp_path / "noise.wav", 30.0).read_bytes()
    found: list[tuple[int, str]] = []

    def ask() -> None:
        status, answer = post(f"http://127.0.0.1:{port}", "noise.wav", content)
        found.append((status, str(answer.get("detail", ""))))

    try:
        threads = [threading.Thread(target=ask) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
        counts = Counter(status for status, _ in found)
        assert sum(counts.values()) == 60
        assert set(counts) == {200, 503}, counts
        assert counts[200] >= 10
        assert post(f"http://127.0.0.1:{port}", "noise.wav", content)[0] == 200  # and goes on
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert said.splitlines()[-1] == "stopped by SIGTERM"


def test_a_port_that_is_taken_is_told(server: str, tmp_path: Path) -> None:
    port = server.rsplit(":", 1)[1]
    done = command("serve", "--port", port, cwd=tmp_path, status=2)
    assert "cannot be listened on (Address already in use)" in done.stderr


def test_a_song_is_dropped_and_its_genres_are_read(
    chromium: Any, server: str, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By

    path = song(tmp_path / "my song.wav", 40.0)
    chromium.get(server)
    chromium.get_log("browser")
    # a drop, as a browser makes it of a file that is dragged in from outside
    chromium.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], arguments[1], { type: "audio/wav" }));
        const there = document.getElementById("drop");
        for (const kind of ["dragenter", "dragover", "drop"])
          there.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true }));
        """,
        base64.b64encode(path.read_bytes()).decode(),
        path.name,
    )
    result = chromium.find_element(By.ID, "result")
    deadline = time.monotonic() + 60
    while not result.is_displayed():
        assert time.monotonic() < deadline, chromium.find_element(By.ID, "status").text
        time.sleep(0.1)
    expected = next(iter(load_ensemble(shipped_model()).predict(path).items()))
    said = chromium.find_element(By.ID, "status").text
    assert said.startswith(f"my song.wav: {expected[0]}, {100 * expected[1]:.0f} %")
    rows = chromium.find_elements(By.CSS_SELECTOR, "#genres tbody tr")
    assert len(rows) == 10
    assert rows[0].text.startswith(expected[0])
    parts = chromium.find_elements(By.CSS_SELECTOR, "#along rect")
    assert len(parts) >= 10
    assert chromium.find_element(By.ID, "picture").get_attribute("naturalWidth") != "0"
    deadline = time.monotonic() + 20
    while not (
        length := chromium.execute_script("return document.getElementById('player').duration")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert length == pytest.approx(40.0, abs=0.1)  # it can be heard
    assert [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"] == []


def test_a_bad_file_says_why_on_the_page(chromium: Any, server: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    (tmp_path / "letter.mp3").write_text("dear reader")
    chromium.get(server)
    chromium.find_element(By.ID, "file").send_keys(str(tmp_path / "letter.mp3"))
    status = chromium.find_element(By.ID, "status")
    deadline = time.monotonic() + 30
    while "cannot be used" not in status.text:
        assert time.monotonic() < deadline, status.text
        time.sleep(0.1)
    assert status.text.startswith("letter.mp3 cannot be used: not audio, or corrupt")
    assert not chromium.find_element(By.ID, "result").is_displayed()
