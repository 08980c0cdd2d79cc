"""The HTTP interface by real requests to the application; what a replica does is in its place."""

import re
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("multipart", reason="python-multipart is not installed")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from mgc_ray.config import ServeConfig
from mgc_ray.serving.access import token_digest
from mgc_ray.serving.interface import HeadAsGet, ModelInfo, Prediction, interface
from mgc_ray.serving.receiving import receive_song

TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SONG = {"file": ("a.wav", b"content")}


class Replica:
    """Receives songs as a real one does, but has no model."""

    def model(self) -> ModelInfo:
        return ModelInfo(
            genres=["a", "b"],
            members=["gru-0001"],
            trained_on=[],
            protocol="grouped",
            figures=None,
            version="1",
            limits={"megabytes": 1.0},
        )

    async def metrics(self) -> bytes:
        return b"mgc_ray_requests_total 1.0\n"

    async def predict(self, request: Request, picture: bool) -> Prediction:
        file = await receive_song(request, 1)
        if picture:
            raise OSError("/secret/place is full")
        return Prediction(file=file.filename or "", seconds=1.0, genres={"a": 1.0}, parts=[])


def client(token: str = "", **settings: Any) -> TestClient:
    app = interface(Replica(), ServeConfig(**settings), token_digest(token))
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


PATHS = ("/", "/docs", "/openapi.json", "/healthz", "/model", "/metrics")


@pytest.mark.parametrize("path", PATHS)
def test_all_paths_answer_get_and_head_alike(path: str) -> None:
    got, head = client().get(path), client().head(path)
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert got.headers == head.headers
    assert int(head.headers["content-length"]) == len(got.content)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_the_internet(path: str) -> None:
    page = client().get(path).text
    assert "<!doctype html>" in page
    loaded = re.findall(r"""(?:src|href|url|@import|fetch)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert [one for one in loaded if "//" in one and not one.startswith("data:")] == []


def test_the_documentation_has_all_paths_fields_and_refusals_and_commands_to_copy() -> None:
    page = client().get("/docs").text
    described = client().get("/openapi.json").json()
    assert set(described["paths"]) == {"/healthz", "/model", "/predict", "/metrics"}
    for path in described["paths"]:
        assert f" {path}</code>" in page
    for schema in described["components"]["schemas"].values():
        for field in schema["properties"]:
            assert f"<code>{field}</code>" in page
    assert "curl -F file=@song.mp3 http://localhost:8000/predict" in page.replace("&#39;", "'")
    assert "the file is not audio that can be used" in page
    assert "Authorization" not in page


def test_the_documentation_shows_a_host_as_text() -> None:
    host = "localhost:8000/<script>alert(1)</script>"
    assert "<script" not in client().get("/docs", headers={"Host": host}).text


def test_with_a_token_the_model_is_only_for_those_who_have_it() -> None:
    with client(TOKEN, host="0.0.0.0") as asked:
        for path in ("/", "/docs", "/openapi.json", "/healthz"):
            assert asked.get(path).status_code == 200
        for method, path in (("GET", "/model"), ("GET", "/metrics"), ("HEAD", "/metrics")):
            refused = asked.request(method, path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert asked.request(method, path, headers=BEARER).status_code == 200
        assert asked.post("/predict", files=SONG).status_code == 401
        assert asked.post("/predict", files=SONG, headers=BEARER).json()["file"] == "a.wav"


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}"),
        *(TOKEN, f"Bearer {TOKEN.upper()}", f"Bearer {token_digest(TOKEN)}", "Bearer \xff\xfe"),
    ],
)
def test_another_token_is_refused(header: str) -> None:
    refused = client(TOKEN).get("/model", headers={"Authorization": header.encode("latin-1")})
    assert refused.status_code == 401
    assert "send it in the header `Authorization: Bearer TOKEN`" in refused.json()["detail"]


def test_the_description_says_that_a_token_is_needed_and_not_which() -> None:
    described = client(TOKEN).get("/openapi.json")
    assert described.json()["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "security" in described.json()["paths"]["/predict"]["post"]
    assert "security" not in described.json()["paths"]["/healthz"]["get"]
    page = client(TOKEN).get("/docs").text
    assert "Authorization: Bearer TOKEN" in page
    for text in (described.text, page):
        assert TOKEN not in text
        assert token_digest(TOKEN) not in text


def test_pages_of_other_sites_may_use_the_server_where_it_says_so() -> None:
    site = {"Origin": "https://player.example"}
    asking = {"Access-Control-Request-Method": "POST"}
    asking |= {"Access-Control-Request-Headers": "authorization"}
    closed, opened = client(TOKEN), client(TOKEN, cors=["https://player.example"])
    assert closed.post("/predict", files=SONG, headers=site | BEARER).status_code == 403
    assert closed.options("/predict", headers=site | asking).status_code == 405
    allowed = opened.options("/predict", headers=site | asking)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://player.example"
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    done = opened.post("/predict", files=SONG, headers=site | BEARER)
    assert done.status_code == 200
    assert done.headers["access-control-allow-origin"] == "https://player.example"
    refused = opened.post("/predict", files=SONG, headers=site)  # whose reason the page can read
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://player.example"
    other = {"Origin": "https://evil.example"}
    refused = opened.post("/predict", files=SONG, headers=other | BEARER)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    for origin in (site, other):
        done = client(cors=["*"]).post("/predict", files=SONG, headers=origin)
        assert (done.status_code, done.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/health", 404, "there is nothing at /health: see /docs for what there is"),
        ("GET", "/predict", 405, "/predict takes POST, not GET: send one song as the field"),
        ("DELETE", "/model", 405, "/model takes GET, not DELETE"),
        ("POST", "/predict?picture=maybe", 422, "picture: Input should be a valid boolean"),
        ("POST", "/predict", 422, "there is no song in the field `file`: send one song"),
    ],
)
def test_refusals_are_in_words(method: str, path: str, status: int, words: str) -> None:
    refused = client().request(method, path)
    assert refused.status_code == status
    assert refused.json()["detail"].startswith(words)


def test_a_fault_of_the_server_shows_nothing_of_its_machine() -> None:
    failed = client().post("/predict?picture=true", files=SONG)
    assert failed.status_code == 500
    assert failed.json()["detail"].startswith("the server failed, by a fault of its own")
    assert "secret" not in failed.text


def test_requests_are_counted_also_those_that_are_refused() -> None:
    counted: list[tuple[str, int]] = []
    app = interface(
        Replica(),
        ServeConfig(),
        token_digest(TOKEN),
        lambda path, status, seconds: counted.append((path, status)),
    )
    asked = TestClient(app, base_url="http://localhost")
    for path in ("/healthz", "/model", "/wp-login.php"):
        asked.get(path)
    asked.post("/predict", files=SONG, headers=BEARER)
    assert counted == [("/healthz", 200), ("/model", 401), ("other", 404), ("/predict", 200)]


def test_head_is_answered_as_get_also_where_there_is_no_get() -> None:
    other = FastAPI()
    other.add_middleware(HeadAsGet)
    other.post("/predict")(lambda: {"genres": {}})
    refused = TestClient(other).head("/predict")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
