"""The command preprocess: what it prints, how it ends, and that it continues after any end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mgc_ray.pipeline.preprocess
from mgc_ray import RequestError
from mgc_ray.data.chunks import load_chunks
from mgc_ray.data.dataset import TRACKS_PER_SHARD, read_dataset_tracks, read_info
from tests.commands import command
from tests.pipeline.making import (
    PARTS,
    contents,
    make,
    music,
    shards,
    times,
    wav,
    without_other_clusters,
)

pytestmark = pytest.mark.usefixtures("ray_cluster", "small_shards")


def test_the_command_counts_what_is_real_and_what_was_added(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    source, _ = made
    printed = command(
        "preprocess",
        *("--tracks", source, "--dataset", tmp_path / "other", "--chunk-seconds", 1.5),
        *("--set", "dataset.synthetic=2", "--protocol", "cross-validation", "--fold", "1/4"),
        *("--split-seed", 5),
        cwd=tmp_path,
    ).stderr
    assert "12 tracks of 2 genres, 24 chunks (log_mel 128 bands x 130 frames, 1.50 s pe" in printed
    assert (
        "split cross-validation, fold 1/4, seed 5: 2 test, 8 train, 2 valid (4 of train were "
        "added)" in printed
    )
    printed = command(
        "preprocess",
        *("--tracks", source, "--dataset", tmp_path / "unlabelled", "--protocol", "unlabelled"),
        cwd=tmp_path,
    ).stderr
    assert "8 tracks without genres, 8 chunks" in printed
    assert "split unlabelled, seed 0: 7 train, 1 valid\n" in printed


def test_folders_of_a_split_are_its_parts(tmp_path: Path) -> None:
    for g, genre in enumerate(("jazz", "rock")):
        for p, part in enumerate(("train", "val", "test")):
            for i in range(2):
                wav(tmp_path / "music" / part / genre / f"{i}.wav", 100 * g + 10 * p + i)
    given = ("--tracks", "music", "--dataset", "given")
    printed = command("preprocess", *given, cwd=tmp_path).stderr
    assert "genres: jazz (6 files), rock (6)\n" in printed
    assert "the folders train, val, test are parts of a split, with the genres below" in printed
    assert "the split of music is used: --protocol given\n" in printed
    assert "split given, seed 0: 4 test, 4 train, 4 valid\n" in printed
    for track in read_dataset_tracks(tmp_path / "given")[0]:
        part, genre, _ = Path(track.path).relative_to(tmp_path / "music").parts
        assert (track.genre, track.split) == (genre, {"val": "valid"}.get(part, part))
    again = ("--tracks", "music", "--dataset", "grouped", "--protocol", "grouped")
    printed = command("preprocess", *again, cwd=tmp_path).stderr
    assert "the split of music is not used (--protocol given would): --protocol group" in printed
    assert "split grouped, seed 0: 2 test, 8 train, 2 valid" in printed


def test_standard_output_is_one_line_of_json_equal_to_the_file(tmp_path: Path) -> None:
    music(tmp_path / "music", 3)
    args = ("--tracks", "music", "--dataset", "dataset", "--json")
    printed = command("preprocess", *args, cwd=tmp_path).stdout
    assert printed.count("\n") == 1
    content = json.loads((tmp_path / "dataset/dataset.json").read_text())
    assert json.loads(printed) == content | {"chunks": 6}


def test_the_command_needs_tracks(tmp_path: Path) -> None:
    printed = command("preprocess", "--dataset", "d", cwd=tmp_path, status=2).stderr
    assert "--tracks is needed: a folder with one subfolder per genre, or a CSV" in printed


def test_a_refused_request_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    music(tmp_path / "music", 3, ("jazz",))
    args = ("--tracks", "music", "--dataset", "dataset")
    refused = command("preprocess", *args, cwd=tmp_path, status=2)
    assert refused.stdout == ""
    assert refused.stderr == (
        "mgc-ray preprocess: error: a classifier needs at least two genres, but there is only "
        "'jazz': add a folder (or rows) of another\n"
    )


def _processes_of_session(session: int) -> list[int]:
    processes = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # after the name: state, parent, process group, session
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            processes.append(int(entry.name))
    return processes


def _kill_session(child: subprocess.Popen[bytes]) -> None:
    """End a process and the Ray cluster that it started, at once, as a loss of power would."""
    child.kill()
    deadline = time.monotonic() + 30
    while (left := _processes_of_session(child.pid)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    child.wait()


def test_a_killed_command_continues_and_gives_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mgc_ray.pipeline.preprocess, "TRACKS_PER_SHARD", TRACKS_PER_SHARD)
    source, dataset = tmp_path / "music", tmp_path / "dataset"
    for g, genre in enumerate(("jazz", "rock")):
        for i in range(3 * TRACKS_PER_SHARD):
            wav(source / genre / f"{genre}{i}.wav", 1000 * g + i, seconds=6)
    args = ["--tracks", str(source), "--dataset", str(dataset), "--json"]
    child = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.preprocess", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=without_other_clusters(),
    )
    try:
        deadline = time.monotonic() + 100
        while not shards(dataset):
            assert child.poll() is None, "the command ended before it was killed"
            assert time.monotonic() < deadline, "no shard was written"
            time.sleep(0.005)
    finally:
        _kill_session(child)

    assert not read_info(dataset).finished
    assert not (dataset / "tracks.parquet").exists()  # the split had not been drawn
    kept = times(dataset)
    assert 1 <= len(kept) < 6
    for path in shards(dataset):
        assert pq.read_table(path).num_rows == 2 * TRACKS_PER_SHARD
    with pytest.raises(RequestError, match="is unfinished"):
        load_chunks(dataset, PARTS)

    printed = command("preprocess", *args, cwd=tmp_path).stdout
    content = json.loads(printed)
    assert (content["finished"], content["shards"], content["chunks"]) == (True, 6, 192)
    assert {name: t for name, t in times(dataset).items() if name in kept} == kept
    assert read_info(dataset).finished

    make(source, tmp_path / "uninterrupted")
    assert contents(dataset) == contents(tmp_path / "uninterrupted")
    assert read_dataset_tracks(dataset) == read_dataset_tracks(tmp_path / "uninterrupted")
    assert len(load_chunks(dataset, PARTS).split) == 192
