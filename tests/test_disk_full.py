"""A disk that is full: one clear line, and nothing half written is ever read as whole."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import command, process

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"may not mount a file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_dataset_on_a_full_disk_can_be_continued_where_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    command("synth", "--out", "corpus", "--tracks-per-genre", 9, "--seconds", 6, cwd=tmp_path)
    options = ["--tracks", tmp_path / "corpus/tracks.csv", "--dataset", small_disk / "data"]
    full = command("preprocess", *options, cwd=tmp_path, status=1)
    assert "No space left on device" in full.stderr
    unfinished = command(
        "train", "--family", "gru", "--dataset", small_disk / "data", cwd=tmp_path, status=2
    )
    assert "is unfinished" in unfinished.stderr or "is no dataset" in unfinished.stderr
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    command("preprocess", *options, cwd=tmp_path)
    assert not list(small_disk.rglob(".*.tmp"))


def test_a_search_on_a_full_disk_ends_with_a_reason_and_can_be_resumed(
    small_disk: Path, tmp_path: Path
) -> None:
    """Its dataset is there; the disk fills while trials write their weights."""
    home = tmp_path / "home"
    home.mkdir()
    search = ["--smoke", "--family", "gru", "--results", small_disk / "results"]
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    command("search", *search, "--name", "first", cwd=home)
    used = int(subprocess.check_output(["du", "-sb", small_disk]).split()[0])
    size = f"remount,size={used // 1024 + 700}k"
    subprocess.run(["mount", "-o", size, small_disk], check=True)
    first = small_disk / "results/first"
    page = (first / "report.html").read_bytes()
    full = command("report", first, "--out", first / "report.html", cwd=home, status=2)
    assert "No space left on device" in full.stderr
    assert (first / "report.html").read_bytes() == page
    assert not list(first.glob(".*.tmp"))
    done = process("search", *search, "--trials", 4, "--name", "full", cwd=home, status=1)
    assert "No space left on device" in done.stderr
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    resumed = ["--resume", "full", "--results", small_disk / "results", "--json"]
    content = json.loads(command("search", *resumed, cwd=home).stdout)
    assert sum(content["trial_counts"].values()) == 4
    assert "failed" not in content["trial_counts"]
