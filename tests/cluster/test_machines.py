"""A search over a head and three workers that share no folder, and the death of a node.

Each test takes up to a minute on two cores, which the four nodes share.
"""

import contextlib
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgc_ray.corpus.files import write_track
from mgc_ray.data.storage import Storage
from mgc_ray.ensembling.saved import load_ensemble, shipped_model
from mgc_ray.results import TrialRecord, load_search, read_records
from tests.cluster.nodes import HOST, PORT, Node, machines, start_cluster, why_not
from tests.s3 import KEYS, s3_server

_missing = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_missing), reason=f"a cluster of several machines {_missing}"),
    pytest.mark.timeout(900),
]
SMALL = ("--smoke", "--family", "gru", "statistics", "--trials", "6", "--max-epochs", "4")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Head, w1, w2, w3; Ray's sockets need a short path."""
    root = Path("/tmp/mgc-machines")
    shutil.rmtree(root, ignore_errors=True)
    with machines(root, ["head", "w1", "w2", "w3"]) as nodes:
        start_cluster(nodes)
        yield nodes
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server(HOST, 5077) as uri:
        yield uri


def _search(head: Node, name: str, *options: str) -> list[str]:
    address = f"{head.address}:{PORT}"
    return [
        *(sys.executable, "-m", "mgc_ray.search", *options),
        *("--name", name, "--address", address),
    ]


def _check(search: Path, trials: int = 6) -> list[TrialRecord]:
    """Assert that a search has finished with each trial once; the records of its trials."""
    with (search / "leaderboard.csv").open() as file:
        rows = [row["trial"] for row in csv.DictReader(file)]
    assert len(set(rows)) == len(rows) == trials
    assert load_search(search).finished
    records = read_records(search / "trials")
    assert sorted(record.trial for record in records) == sorted(rows)
    assert {record.status for record in records} <= {"completed", "stopped_early"}
    assert not list(search.rglob("state.safetensors"))
    return records


def _when(
    process: subprocess.Popen[str], holds: Callable[[], bool], what: str, seconds: float = 200
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None:
            printed = process.stderr.read() if process.stderr else ""
            pytest.fail(f"ended before {what}: {printed}")
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.02)


def test_nodes_that_share_no_folder_are_refused_without_a_storage(cluster: list[Node]) -> None:
    head = cluster[0]
    done = head.run(*_search(head, "refused", *SMALL))
    assert done.returncode == 2, done.stderr
    assert "all nodes of the cluster must see" in done.stderr
    assert "--storage" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_client_without_the_token_is_refused(cluster: list[Node]) -> None:
    head, worker, *_ = cluster
    token = worker.outside / ".ray/auth_token"
    kept = token.read_text()
    token.write_text("0" * len(kept))
    try:
        done = worker.run(*_search(head, "intruder", *SMALL), timeout=120)
    finally:
        token.write_text(kept)
    assert done.returncode != 0
    assert "InvalidAuthToken" in done.stderr
    assert "looking at" not in done.stderr  # nothing was run


def test_a_whole_search_over_three_workers_and_a_bucket(cluster: list[Node], bucket: str) -> None:
    head, *workers = cluster
    options = [*SMALL, "--refit-folds", "2", "--top-k", "2", "--storage", bucket]
    done = head.run(*_search(head, "whole", *options))
    assert done.returncode == 0, done.stderr
    records = _check(head.outside / "results/whole")
    nodes = {record.node for record in records}
    assert len(nodes) > 1
    assert nodes <= {worker.address for worker in workers}  # the head runs no trials
    for worker in workers:
        left = [path for path in worker.outside.rglob("*") if path.is_file()]
        assert not [path for path in left if path.suffix in (".safetensors", ".parquet", ".wav")]
    for path in (head.outside / "results").rglob("*.json"):
        assert "secret" not in path.read_text()
    song = next((head.outside / "results/corpora").rglob("*.wav")).relative_to(head.outside)
    predicted = head.run(
        *(sys.executable, "-m", "mgc_ray.predict", "--model", "results/whole/ensemble", str(song))
    )
    assert predicted.returncode == 0, predicted.stderr


def test_another_head_resumes_from_what_is_in_the_bucket(
    cluster: list[Node], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is killed, and all files of its machine are lost."""
    head = cluster[0]
    process = head.start(
        *_search(head, "moved", *SMALL, "--trials", "8", "--storage", bucket),
        stderr=subprocess.DEVNULL,
    )
    search = head.outside / "results/moved"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    storage = Storage(bucket)

    def sent() -> list[str]:
        files = storage.files("moved/trials")
        return [file.split("/")[2] for file in files if file.endswith("/trial.json")]

    _when(process, lambda: len(sent()) >= 2, "two trials")
    first = sent()  # another may end before it is killed, and not reach the bucket
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = {name: (search / "trials" / name / "trial.json").read_text() for name in first}
    shutil.rmtree(head.outside / "results/moved")
    shutil.rmtree(head.outside / "results/datasets")
    resume = ["--resume", "moved", "--storage", bucket, "--address", f"{head.address}:{PORT}"]
    done = head.run(sys.executable, "-m", "mgc_ray.search", *resume)
    assert done.returncode == 0, done.stderr
    _check(search, trials=8)
    for name, record in ended.items():
        assert (search / "trials" / name / "trial.json").read_text() == record


def test_the_replicas_of_a_server_run_on_all_workers(cluster: list[Node]) -> None:
    """They answer requests to the head, where alone the model is."""
    head, *workers = cluster
    write_track(head.outside / "song.wav", "rock", 0, 0, 5.0)
    log = head.outside / "serve.log"
    with log.open("w") as stderr:
        server = head.start(
            *(sys.executable, "-m", "mgc_ray.serve", "--port", "8123"),
            *("--address", f"{head.address}:{PORT}"),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        _when(server, lambda: "with 3 replicas" in log.read_text(), "answering server")
        done = head.run(sys.executable, "-c", _ASK, "8123", "song.wav", timeout=200)
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        alone = load_ensemble(shipped_model()).predict(head.outside / "song.wav")
        for answer in answers:
            assert answer["genres"] == pytest.approx(alone, abs=1e-5)
        on_workers = [_replicas(worker) for worker in workers]
        assert on_workers == [1, 1, 1], on_workers
        assert _replicas(head) == 0
    finally:
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=60)
        printed = log.read_text()
    assert server.returncode == 0, printed
    assert printed.splitlines()[-1] == "stopped by SIGTERM"
    assert not out  # no message of Ray


# sends the song by six threads
_ASK = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen
address = f"http://127.0.0.1:{sys.argv[1]}"
head = b'--x\\r\\nContent-Disposition: form-data; name="file"; filename="song.wav"\\r\\n\\r\\n'
body = head + open(sys.argv[2], "rb").read() + b"\\r\\n--x--\\r\\n"
request = Request(f"{address}/predict", body, {"Content-Type": "multipart/form-data; boundary=x"})
with ThreadPoolExecutor(6) as pool:
    answers = list(pool.map(lambda _: json.load(urlopen(request, timeout=60)), range(30)))
print(json.dumps(answers))
"""


def _replicas(node: Node) -> int:
    """How many processes on the node are replicas of the server."""
    names = []
    for pid in node.processes():
        with contextlib.suppress(OSError):  # it has ended since
            names.append(Path(f"/proc/{pid}/cmdline").read_text())
    return sum("ServeReplica" in name for name in names)


@pytest.mark.parametrize("stage", ["preprocessing", "search", "refit"])
def test_a_worker_that_dies_costs_nothing_but_time(cluster: list[Node], stage: str) -> None:
    """With a folder that all nodes share as storage; the node joins again afterwards."""
    head, _, victim, _ = cluster
    shared = head.home.parent / f"shared-{stage}"
    search = head.outside / "results" / stage
    options = [*SMALL, "--refit-folds", "3", "--top-k", "2", "--storage", str(shared)]
    if stage == "preprocessing":  # a dataset of its own
        options += ["--split-seed", "7"]
    if stage == "refit":  # shard by shard, which nodes take from the storage
        options += ["--memory", "0"]
    process = head.start(
        *_search(head, stage, *options, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    has_begun = {
        "preprocessing": lambda: any(shared.glob("datasets/*/tracks-*/*")),
        "search": lambda: any(shared.rglob("state.safetensors")),
        "refit": lambda: any(search.glob("refit/*/fold-1/held.npz")),
    }[stage]
    _when(process, has_begun, stage)
    victim.die()
    out, printed = process.communicate(timeout=600)
    try:
        assert process.returncode == 0, printed
        assert json.loads(out)["finished"]  # no message of Ray about the death is among it
        assert ("are streamed from disk" in printed) == (stage == "refit")
        _check(search)
        assert len(list(search.glob("refit/*/fold-*/held.npz"))) == 6
    finally:
        victim.join(head, cpus=1)
