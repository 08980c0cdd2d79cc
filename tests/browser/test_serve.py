"""The server as programs and people use it: real HTTP, real songs, a real browser."""

import base64
import contextlib
import io
import json
import select
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import soundfile
from PIL import Image

from mgc_ray.config import DatasetConfig
from mgc_ray.data.features import audio_features
from mgc_ray.ensembling.saved import load_ensemble, shipped_model
from tests.commands import command
from tests.made_models import Member, register_own_family, write_ensemble
from tests.server import post_song, running_server
from tests.serving.test_metrics import samples

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    options = ("--max-megabytes", "3", "--max-seconds", "60", "--replicas", "1")
    with running_server(*options) as address:
        yield address


def song(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 22050))
    soundfile.write(path, samples, 22050)
    return path


def picture_size(data_uri: str) -> tuple[int, int]:
    """Width and height of the PNG in a data URI."""
    start = "data:image/png;base64,"
    assert data_uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(data_uri.removeprefix(start)))).size


# --- HTTP ---


def test_a_song_gets_the_probabilities_that_predict_gives(server: str, tmp_path: Path) -> None:
    path = song(tmp_path / "noise.wav", 40.0)
    status, response = post_song(server, "noise.wav", path.read_bytes(), "?picture=true")
    assert status == 200
    expected = load_ensemble(shipped_model()).predict(path)
    assert list(response["genres"]) == list(expected)
    assert response["genres"] == pytest.approx(expected, abs=2e-6)
    assert response["seconds"] == 40.0
    # the shortest chunks that a member reads; the last 1.1 s are less than one
    starts = [part["start"] for part in response["parts"]]
    assert starts == pytest.approx([2.9932 * chunk for chunk in range(13)], abs=0.01)
    for part in response["parts"]:
        assert sum(part["genres"].values()) == pytest.approx(1, abs=1e-4)
    assert picture_size(response["picture"])[1] == 128


def test_members_may_read_several_features_and_be_of_a_family_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = register_own_family(tmp_path, monkeypatch)
    features = audio_features(DatasetConfig(features=("mfcc", "log_mel"), chunk_seconds=1.0))
    model = write_ensemble(
        tmp_path / "ensemble",
        features,
        [
            Member("my_family", {"features": "log_mel+mfcc"}, 0.75, temperature=1.5),
            Member("my_family", {"features": "mfcc"}, 0.25, temperature=0.5),
        ],
        temperature=1.2,
    )
    path = song(tmp_path / "noise.wav", 3.5)
    options = ("--model", str(model), "--family", str(family), "--replicas", "1")
    with running_server(*options) as address:
        status, response = post_song(address, "noise.wav", path.read_bytes(), "?picture=true")
    assert status == 200, response
    assert response["genres"] == pytest.approx(load_ensemble(model).predict(path), abs=2e-6)
    times = [(part["start"], part["end"]) for part in response["parts"]]
    assert times == [(0, 1), (1, 2), (2, 3)]
    assert response["short"] is None
    # log_mel, not mfcc of 20 bands; along 3.5 s, half a second of which is in no part
    assert picture_size(response["picture"]) == (round(3.5 * 87), 128)


def test_the_server_listens_by_ipv6_and_answers_head(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    with running_server("--replicas", "1", host="::1") as address:
        for path in ("/healthz", "/model", "/", "/docs", "/openapi.json"):
            with urlopen(address + path, timeout=20) as got:
                length = len(got.read())
            with urlopen(Request(address + path, method="HEAD"), timeout=20) as head:
                assert (head.status, head.read()) == (200, b"")
                assert int(head.headers["content-length"]) == length
        status, response = post_song(address, "a.wav", song(tmp_path / "a.wav", 1.4).read_bytes())
    assert status == 200
    assert [(part["start"], part["end"]) for part in response["parts"]] == [(0, 1.4)]
    assert response["short"] == "1.40 s, shorter than half a chunk (of 2.99 s)"


def test_the_server_describes_its_interface_and_its_model(server: str) -> None:
    with urlopen(f"{server}/openapi.json", timeout=20) as response:
        described = json.load(response)
    assert set(described["paths"]) == {"/healthz", "/model", "/predict", "/metrics"}
    assert set(described["paths"]["/predict"]["post"]["responses"]) >= {"200", "413", "415", "503"}
    with urlopen(f"{server}/model", timeout=20) as response:
        model = json.load(response)
    info = load_ensemble(shipped_model()).info
    assert model["genres"] == list(info.genres)
    assert model["members"] == [member.name for member in info.members]
    assert model["trained_on"][-1] == {
        "source": "GTZAN/log_mel.csv",
        "protocol": "given",
        "task": "genres",
    }
    assert model["figures"] is None  # it was not tested
    assert model["limits"] == {"megabytes": 3, "seconds": 60, "timeout": 60, "queue": 64}


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
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    server: str, name: str, content: bytes, status: int, reason: str
) -> None:
    given_status, response = post_song(server, name, content)
    assert given_status == status, response
    assert response["detail"].startswith(reason)


def test_a_song_that_is_too_long_is_refused(server: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(8000 * 61, 0.1), 8000)
    status, response = post_song(server, "long.wav", (tmp_path / "long.wav").read_bytes())
    assert status == 413
    assert response["detail"].startswith("a song may be 60 s long at most")


_FIELD = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.wav"\r\n\r\nab\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "reason"),
    [
        (
            "application/x-www-form-urlencoded",
            b"",
            422,
            "there is no song in the field `file`: send one",
        ),
        (
            "audio/mpeg",
            b"ID3\x04\x00\xff\xfb\x90",
            422,
            "there is no song in the field `file`, as the body is no form but audio/mpeg: send one",
        ),
        (
            "multipart/form-data; boundary=x",
            b"\xff\xfbno form",
            400,
            "the form is damaged (Invalid multipart data): send one",
        ),
        (
            "multipart/form-data; boundary=x",
            _FIELD % b"song" + b"--x--\r\n",
            422,
            "the song is in the field `song` and not in `file`",
        ),
        (
            "multipart/form-data; boundary=x",
            2 * (_FIELD % b"file") + b"--x--\r\n",
            422,
            "there are several songs in the field `file`: send one",
        ),
    ],
    ids=["nothing", "no form", "broken form", "other field", "two files"],
)
def test_a_request_that_is_not_a_form_with_one_song_is_refused_with_an_example(
    server: str, kind: str, body: bytes, status: int, reason: str
) -> None:
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{server}/predict", body, {"Content-Type": kind}), timeout=20)
    assert error.value.code == status
    detail = json.load(error.value)["detail"]
    assert detail.startswith(reason)
    assert "curl -F file=@song.mp3" in detail


def test_an_endless_upload_is_refused_before_its_end(server: str) -> None:
    port, sent, response = int(server.rsplit(":", 1)[1]), 0, b""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        block = head + bytes(2**20)
        while not response and sent < 1e9:
            connection.sendall(b"%x\r\n%s\r\n" % (len(block), block))
            sent += len(block)
            readable, _, _ = select.select([connection], [], [], 0.02)
            response = connection.recv(2**12) if readable else b""
            block = bytes(2**20)
    assert b" 413 " in response.splitlines()[0]
    assert sent < 250e6


def test_by_default_only_this_machine_can_connect(server: str) -> None:
    port = int(server.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as file:
        listening = [line.split()[1] for line in file if line.split()[3] == "0A"]
    assert [where for where in listening if where.endswith(f":{port:04X}")] == [
        f"0100007F:{port:04X}"
    ]


def test_too_many_songs_at_once_are_refused_and_all_others_predicted(tmp_path: Path) -> None:
    content = song(tmp_path / "noise.wav", 30.0).read_bytes()
    statuses: list[int] = []
    with running_server("--replicas", "1", "--queue", "2", stop=signal.SIGTERM) as address:
        threads = [
            threading.Thread(
                target=lambda: statuses.append(post_song(address, "noise.wav", content)[0])
            )
            for _ in range(60)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
        counts = Counter(statuses)
        assert sum(counts.values()) == 60
        assert set(counts) == {200, 503}, counts
        assert counts[200] >= 10
        assert post_song(address, "noise.wav", content)[0] == 200  # and afterwards as before


def test_the_metrics_are_of_all_replicas_and_a_token_is_seen_nowhere(tmp_path: Path) -> None:
    token, content = "correct-horse-battery", song(tmp_path / "a.wav", 3.0).read_bytes()
    started = time.time()
    with running_server("--replicas", "2", token=token) as address:
        served: set[int] = set()
        for number in range(24):  # of which each replica gets some
            served.add(post_song(address, f"{number}.wav", content, token=token)[0])
        assert served == {200}
        assert post_song(address, "a.wav", content)[0] == 401
        assert post_song(address, "a.mp3", b"dear reader", token=token)[0] == 415
        bearer = {"Authorization": f"Bearer {token}"}
        expected = {
            "requests_total{/predict,200}": 24,
            "requests_total{/predict,401}": 1,
            "errors_total{/predict,415}": 1,
            "music_seconds_total": 72,
            "queue_songs": 0,
            "running_songs": 0,
            "replicas": 2,
        }
        for _ in range(6):  # whichever replica is asked
            deadline, found = time.monotonic() + 10, {}
            while not expected.items() <= found.items():
                assert time.monotonic() < deadline, found
                with urlopen(Request(f"{address}/metrics", headers=bearer), timeout=20) as got:
                    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
                    found = samples(got.read())
        sessions = Path(tempfile.gettempdir(), "ray").glob("session_2*")
        own = [session for session in sessions if session.stat().st_mtime > started]
        written = [path for session in own for path in session.rglob("*") if path.is_file()]
        assert any(path.name.startswith("raylet") for path in written)
        for path in (*written, *Path("/proc").glob("[0-9]*/cmdline")):
            with contextlib.suppress(OSError):
                assert token.encode() not in path.read_bytes(), path


def test_a_port_that_is_in_use_is_refused(server: str, tmp_path: Path) -> None:
    port = server.rsplit(":", 1)[1]
    done = command("serve", "--port", port, cwd=tmp_path, status=2)
    assert "must be free to listen on, but it is not (Address already in use)" in done.stderr


# --- the page ---


def test_a_song_dropped_on_the_page_shows_its_genres(
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
        const target = document.getElementById("drop");
        for (const kind of ["dragenter", "dragover", "drop"])
          target.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true }));
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
    status = chromium.find_element(By.ID, "status").text
    assert status.startswith(f"my song.wav: {expected[0]}, {100 * expected[1]:.0f} %")
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


def test_the_page_asks_for_the_token_and_continues_with_the_song(
    chromium: Any, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By

    token, path = "correct-horse-battery", song(tmp_path / "my song.wav", 4.0)
    status, form = (By.ID, "status"), (By.ID, "token")

    def wait_for(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, chromium.find_element(*status).text
            time.sleep(0.1)

    with running_server("--replicas", "1", token=token) as address:
        chromium.get(address)
        wait_for(lambda: chromium.find_element(*form).is_displayed())
        chromium.find_element(By.ID, "file").send_keys(str(path))
        wait_for(lambda: "is only for those" in chromium.find_element(*status).text)
        field = chromium.find_element(By.CSS_SELECTOR, "#token input")
        field.send_keys(token)
        field.submit()
        wait_for(lambda: "my song.wav: " in chromium.find_element(*status).text)
        assert not chromium.find_element(*form).is_displayed()
        assert token not in chromium.current_url
        about = chromium.find_element(By.ID, "about").get_attribute("textContent")
        assert about.startswith("It knows ")


def test_the_documentation_needs_no_network(chromium: Any, server: str) -> None:
    from selenium.webdriver.common.by import By

    chromium.get(f"{server}/docs")
    headings = [one.text for one in chromium.find_elements(By.TAG_NAME, "h2")]
    assert {"GET /healthz", "POST /predict", "Prediction"} <= set(headings)
    names = "return performance.getEntriesByType('resource').map(one => one.name)"
    assert [one for one in chromium.execute_script(names) if not one.startswith(server)] == []
    for width in (1200, 500):
        chromium.set_window_size(width, 900)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert chromium.execute_script(wide) == 0


def test_the_page_shows_why_a_file_is_refused(chromium: Any, server: str, tmp_path: Path) -> None:
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
