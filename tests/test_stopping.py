"""Ctrl-C, SIGTERM, and two searches of one name: nothing finished is lost, and it is said."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.commands import command


def _read_all(terminal: int, screen: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 4096):
            screen.append(data)


def _heeds_ctrl_c() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(home: Path) -> None:
    """In a terminal, so that the live display is there too."""
    terminal, its_end = os.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "cnn", "--smoke"),
            *("--trials", "4", "--max-epochs", "12", "--concurrent", "1", "--name", "stopped"),
        ],
        cwd=home,
        stderr=its_end,
        start_new_session=True,
        preexec_fn=_heeds_ctrl_c,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"},
    )
    os.close(its_end)
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
    said = b"".join(screen).decode()
    assert status == 130, said
    assert "of 4 trials done" in said
    assert "running: cnn-000" in said
    assert "python -m mgc_ray.search --resume stopped\r" in said
    assert "Traceback" not in said

    finished = {path: path.stat().st_mtime_ns for path in trials.glob("*/trial.json")}
    assert 1 <= len(finished) < 4
    done = command("search", "--resume", "stopped", "--json", cwd=home)
    assert sum(json.loads(done.stdout)["trials"].values()) == 4
    for path, changed in finished.items():
        assert path.stat().st_mtime_ns == changed
    again = command("search", "--resume", "stopped", cwd=home, status=2)
    assert "has ended already" in again.stderr


def _searching(home: Path, name: str, *options: str) -> subprocess.Popen[str]:
    """A search in the background, with a trial that has a state to go on from."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "gru", "--smoke"),
            *("--max-epochs", "500", "--concurrent", "1", "--name", name, *options),
        ],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeds_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not list((home / "results" / name).rglob("state.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_second_ctrl_c_ends_at_once_and_nothing_is_lost(home: Path) -> None:
    process = _searching(home, "twice", "--set", "patience=500")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 1
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list((home / "results/twice").rglob("state.safetensors"))


def test_a_search_that_a_scheduler_ends_keeps_its_trials_and_says_how_to_go_on(home: Path) -> None:
    process = _searching(home, "ended", "--set", "patience=500")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "stopped by SIGTERM; what is finished is kept" in said
    assert "python -m mgc_ray.search --resume ended" in said
    assert "Traceback" not in said
    assert "*** SIGTERM" not in said  # of Ray's own handler
    assert list((home / "results/ended").rglob("state.safetensors"))


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
def test_a_search_that_is_ended_while_ray_starts_says_so(tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.search", "--smoke", "--family", "gru", "--name", "early"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    while "Ray" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said


def test_a_second_search_of_one_name_is_refused_while_the_first_lives(home: Path) -> None:
    process = _searching(home, "taken", "--set", "patience=500")
    try:
        second = command("search", "--resume", "taken", cwd=home, status=2)
        assert f"is being searched by process {process.pid} on " in second.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_while_preprocessing_says_how_to_go_on_and_leaves_ray_alone(
    home: Path, tmp_path: Path
) -> None:
    corpus = next((home / "results/corpora").iterdir()) / "tracks.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.preprocess", "--tracks", corpus, "--dataset", "d"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heeds_ctrl_c,
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "d/tracks.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Started a local Ray" not in said
    assert said.splitlines()[-1].startswith("stopped by Ctrl-C: the same command again")
    command("preprocess", "--tracks", corpus, "--dataset", "d", cwd=tmp_path)
