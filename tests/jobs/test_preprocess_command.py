"""The command: what it says, how it ends, and that it goes on after any end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mgc_ray.data.synth
import mgc_ray.jobs.preprocess
import mgc_ray.preprocess
import mgc_ray.tuning.cluster
from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    read_info,
)
from tests.jobs.making import (
    PARTS,
    contents,
    make,
    music,
    own_environment,
    shards,
    times,
    wav,
)

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")


def said_by_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> str:
    monkeypatch.setattr(sys, "argv", ["preprocess", *map(str, arguments)])
    assert mgc_ray.preprocess.main() == 0
    return capsys.readouterr().err


def test_the_command_counts_what_is_real_and_what_is_synthetic(
    made: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, _ = made
    options = ["--tracks", source, "--dataset", tmp_path / "other", "--chunk-seconds", "1.5"]
    options += ["--synthetic", "2", "--protocol", "cross-validation", "--fold", "1/4", "--seed"]
    said = said_by_main(monkeypatch, capsys, *options, "5")
    assert "12 tracks of 2 genres, 24 chunks (log-mel 128 bands x 130 frames, 1.50 s a ch" in said
    assert (
        "split cross-validation, fold 1/4, seed 5: 2 test, 8 train, 2 valid (4 of train were "
        "added)" in said
    )
    options = ["--tracks", source, "--dataset", tmp_path / "unlabelled", "--protocol", "unlabelled"]
    said = said_by_main(monkeypatch, capsys, *options)
    assert "8 tracks without genres, 8 chunks" in said
    assert "split unlabelled, seed 0: 7 train, 1 valid\n" in said


def test_the_command_needs_tracks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["preprocess", "--dataset", str(tmp_path)])
    with pytest.raises(RequestError, match="--tracks is needed: a folder with a subfolder a genre"):
        mgc_ray.preprocess.main()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "mgc_ray.preprocess", *map(str, arguments)]


def test_a_refused_request_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    source = music(tmp_path / "music", 3, ("jazz",))
    done = subprocess.run(
        command("--tracks", source, "--dataset", tmp_path / "dataset"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=own_environment(),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "mgc_ray.preprocess: error: a classifier needs at least two genres, but there is only "
        "'jazz': add a folder (or rows) of another\n"
    )


def processes_of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # after the name: state, parent, process group, session
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def kill_session(child: subprocess.Popen) -> None:
    """End a process and the Ray cluster that it started, at once, as a loss of power would."""
    child.kill()
    deadline = time.monotonic() + 30
    while (left := processes_of_session(child.pid)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    child.wait()


def test_a_killed_command_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mgc_ray.jobs.preprocess, "TRACKS_PER_SHARD", TRACKS_PER_SHARD)
    source, dataset = tmp_path / "music", tmp_path / "dataset"
    for g, genre in enumerate(("jazz", "rock")):
        for i in range(3 * TRACKS_PER_SHARD):
            wav(source / genre / f"{genre}{i}.wav", 1000 * g + i, seconds=6)
    arguments = command("--tracks", source, "--dataset", dataset, "--json")
    child = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=own_environment(),
    )
    try:
        deadline = time.monotonic() + 100
        while not shards(dataset):
            assert child.poll() is None, "the command ended before it was killed"
            assert time.monotonic() < deadline, "no shard was written"
            time.sleep(0.005)
    finally:
        kill_session(child)

    info = read_info(dataset)
    assert (info.finished, info.shards) == (False, 6)
    kept = times(dataset)
    assert 1 <= len(kept) < 6
    for path in shards(dataset):
        assert pq.read_table(path).num_rows == 2 * TRACKS_PER_SHARD
    with pytest.raises(RequestError, match="is unfinished"):
        load_chunks(dataset, PARTS)

    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=100, check=False, env=own_environment()
    )
    assert done.returncode == 0, done.stderr
    assert '"finished"' not in done.stdout
    assert '"chunks": 192' in done.stdout
    assert {name: t for name, t in times(dataset).items() if name in kept} == kept
    assert read_info(dataset).finished

    make(source, tmp_path / "uninterrupted")
    assert contents(dataset) == contents(tmp_path / "uninterrupted")
    assert len(load_chunks(dataset, PARTS).split) == 192
