"""Ctrl-C, SIGTERM, and two searches of one name: nothing finished is lost, and the user knows."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import command, typed_in
from tests.pipeline.making import without_other_clusters
from tests.processes import Marked


def _read_all(terminal: int, screen: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 4096):
            screen.append(data)


def _heed_ctrl_c() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_is_finished_and_the_search_can_be_resumed(home: Path) -> None:
    """In a terminal, so that the live display is tested too."""
    terminal, child_end = os.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "cnn", "--smoke"),
            *("--trials", "3", "--max-epochs", "5", "--concurrent", "1", "--name", "stopped"),
        ],
        cwd=home,
        stderr=child_end,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
        env=without_other_clusters() | {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"},
    )
    os.close(child_end)
    screen: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(terminal, screen))
    reader.start()
    trials = home / "results/stopped/trials"
    deadline = time.monotonic() + 120
    while not list(trials.glob("*/trial.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    status = process.wait(60)
    reader.join(20)
    printed = b"".join(screen).decode()
    assert status == 130, printed
    assert "of 3 trials done" in printed
    assert "running: cnn-000" in printed
    assert f"{typed_in(home, 'search')} --resume stopped\r" in printed
    assert "Traceback" not in printed

    finished = {path: path.stat().st_mtime_ns for path in trials.glob("*/trial.json")}
    assert 1 <= len(finished) < 3
    done = command("search", "--resume", "stopped", "--json", cwd=home)
    assert sum(json.loads(done.stdout)["trial_counts"].values()) == 3
    for path, changed in finished.items():
        assert path.stat().st_mtime_ns == changed
    again = command("search", "--resume", "stopped", cwd=home, status=2)
    assert "has ended already" in again.stderr


def _start_search(home: Path, name: str, marked: Marked | None = None) -> subprocess.Popen[str]:
    """A search in the background, with a trial that has a state to continue from.

    In a process group of its own, as a shell starts it.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "gru", "--smoke"),
            *("--max-epochs", "500", "--concurrent", "1", "--name", name),
            *("--set", "patience=500"),
        ],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=_heed_ctrl_c,
        env=without_other_clusters() | (marked or Marked()).environment,
    )
    deadline = time.monotonic() + 120
    while not list((home / "results" / name).rglob("state.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow  # tests/terminal/test_stopping.py has the quick part
def test_a_second_ctrl_c_ends_at_once_and_nothing_is_lost(home: Path) -> None:
    process = _start_search(home, "twice")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 1
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert list((home / "results/twice").rglob("state.safetensors"))


def test_a_running_search_keeps_its_name_and_ends_by_sigterm_with_what_to_do(home: Path) -> None:
    """SIGTERM reaches all processes of the command, as `timeout` sends it to the group."""
    marked = Marked()
    process = _start_search(home, "ended", marked)
    second = command("search", "--resume", "ended", cwd=home, status=2)
    assert f"is being searched by process {process.pid} on " in second.stderr
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    printed = process.communicate(timeout=20)[1]
    assert not marked.left()
    assert process.returncode == 130, printed
    assert "stopped by SIGTERM; what is finished is kept" in printed
    assert f"{typed_in(home, 'search')} --resume ended" in printed
    assert "Traceback" not in printed
    assert "GCS" not in printed  # of Ray's
    assert list((home / "results/ended").rglob("state.safetensors"))


@dataclass(frozen=True)
class Stage:
    """A command, and when it is stopped: `reached` is asked with its folder and what it printed."""

    command: str
    reached: Callable[[Path, str], bool]
    says: str  # how to continue
    status: int = 130


_SEARCH = "search --smoke --family gru --name s"
_CONTINUE = "; what is finished is kept. Continue with:\n  SEARCH --resume s"
STAGES = {
    "preprocessing": Stage(
        "preprocess --tracks CORPUS --dataset d",
        lambda folder, _: (folder / "d/chunks").is_dir(),
        ": the same command again does only what is missing",
    ),
    "refit": Stage(
        f"{_SEARCH} --refit-folds 5",
        lambda folder, _: any(folder.glob("results/s/refit/*/refit.json")),
        _CONTINUE,
    ),
    "ensemble": Stage(
        _SEARCH, lambda folder, _: (folder / "results/s/ensemble").exists(), _CONTINUE
    ),
    "library": Stage(
        "predict MUSIC --out g.csv",
        lambda folder, _: any(folder.glob("g.csv.parts/*.parquet")),
        ": the same command again continues",
    ),
    "export": Stage(
        "export --onnx m.onnx",
        lambda _, printed: "exporting" in printed,
        ": nothing was written, the same command starts again",
    ),
    "training": Stage(
        "train --family gru --dataset DATASET --out c --set max_epochs=500 --set patience=500",
        lambda folder, _: (folder / "c/config.json").exists(),
        "; the best epoch so far is in c",
    ),
    "synthesis": Stage(
        "synth --out c --tracks-per-genre 300",
        lambda folder, _: any(folder.rglob("*.wav")),
        ": the same command again continues",
    ),
    "the start of synthesis": Stage(
        "synth --out c --tracks-per-genre 300",
        lambda folder, _: (folder / "c/corpus.json").exists(),
        ": the same command again continues",
    ),
    "the start of a server": Stage("serve --port 8917", lambda _, printed: "Ray" in printed, "", 0),
    "a server": Stage("serve --port 8917", lambda _, printed: "serving" in printed, "", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("reaches", ["group", "all"])
@pytest.mark.parametrize("name", STAGES)
def test_sigterm_to_all_processes_ends_every_stage_in_order(
    home: Path, tmp_path: Path, name: str, reaches: str
) -> None:
    """To the process group by `timeout`, to each process by systemd and Slurm."""
    stage, marked = STAGES[name], Marked()
    corpus = next((home / "results/corpora").iterdir())
    places = {"CORPUS": corpus / "tracks.csv", "MUSIC": corpus}
    places["DATASET"] = next((home / "results/datasets").iterdir())
    argv = [str(places.get(word, word)) for word in stage.command.split()]
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"mgc_ray.{argv[0]}", *argv[1:]],
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            process_group=0,
            env=without_other_clusters() | marked.environment,
        )
    deadline = time.monotonic() + 150
    while not stage.reached(tmp_path, printed.read_text()):
        assert process.poll() is None, printed.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if reaches == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        marked.send(signal.SIGTERM)
    status = process.wait(20)
    left = marked.left()
    text = printed.read_text()
    says = stage.says.replace("SEARCH", typed_in(tmp_path, "search"))
    assert status == stage.status, text
    assert f"stopped by SIGTERM{says}" in text
    assert text.rstrip().endswith(says.splitlines()[-1] if says else "SIGTERM")
    assert not [word for word in ("Traceback", "GCS", "raylet", "core_worker") if word in text]
    assert not left, marked.commands(left)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(0.5, marks=pytest.mark.slow),
        1.5,
        pytest.param(2.5, marks=pytest.mark.slow),
    ],
)
def test_a_search_can_be_ended_while_ray_starts(tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.search", "--smoke", "--family", "gru", "--name", "early"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=without_other_clusters(),
    )
    assert process.stderr
    while "Ray" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=60)[1]
    assert process.returncode == 130, printed
    assert "stopped by SIGTERM" in printed
    assert "Traceback" not in printed


def test_preprocessing_that_is_stopped_can_be_continued_and_ends_its_ray(
    home: Path, tmp_path: Path
) -> None:
    corpus = next((home / "results/corpora").iterdir()) / "tracks.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.preprocess", "--tracks", corpus, "--dataset", "d"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
        env=without_other_clusters(),
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "d/dataset.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert "Started a local Ray" not in printed
    assert printed.splitlines()[-1].startswith("stopped by Ctrl-C: the same command again")
    command("preprocess", "--tracks", corpus, "--dataset", "d", cwd=tmp_path)
