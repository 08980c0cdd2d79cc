"""Files that are complete or absent, places to write, JSON, CSV and the lock of a folder."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data import files
from mgc_ray.data.files import (
    LOCK,
    atomic_write,
    check_output_file,
    check_output_folder,
    delete_partial_files,
    exclusive_lock,
    is_damaged,
    partial_path,
    read_json,
    replace_folder,
    try_to_write,
    write_csv,
    write_json,
)
from tests.places import mounted, without_rights


class Interruption(BaseException):
    """Like KeyboardInterrupt: no Exception, may come anywhere."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interruption])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half"), atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.startswith(".")
        assert not temporary.match("*.parquet")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    partial_path(tmp_path / "a.json").symlink_to(other)
    write_json(tmp_path / "a.json", {"a": 1})
    partial_path(tmp_path / "writable").symlink_to(other)
    try_to_write(tmp_path / "writable")
    assert other.read_text() == "kept"
    assert read_json(tmp_path / "a.json", "test", "none") == {"a": 1}


def test_partial_files_are_deleted_at_any_depth_and_others_are_kept(tmp_path: Path) -> None:
    kept = [tmp_path / "a.parquet", tmp_path / "deep/.hidden", tmp_path / "deep/notes.tmp"]
    partial = [partial_path(tmp_path / "a.parquet"), partial_path(tmp_path / "deep/b.json")]
    (tmp_path / "deep").mkdir()
    for path in kept + partial:
        path.touch()
    folder = partial_path(tmp_path / "deep/checkpoint")
    folder.mkdir()
    (folder / "weights").touch()
    delete_partial_files(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    assert not folder.exists()


def test_a_lock_is_held_until_its_process_ends(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mgc_ray.data.files import exclusive_lock\n"
        f"with exclusive_lock(Path({str(tmp_path)!r}), print):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holders: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"

        def in_use(holder: str) -> None:
            holders.append(holder)
            other.kill()

        with exclusive_lock(tmp_path, in_use):
            pass
    assert holders
    assert holders[0].startswith(f"process {other.pid} on ")
    assert (tmp_path / LOCK).exists()


def test_a_lock_that_is_deleted_with_its_folder_is_not_held_by_who_waited_for_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "parts"
    order: list[str] = []

    def wait() -> None:
        with exclusive_lock(folder, lambda holder: order.append("waits")):
            order.append("holds")
            assert (folder / LOCK).exists()

    thread = threading.Thread(target=wait)
    with exclusive_lock(folder, print):
        thread.start()
        while not order:
            time.sleep(0.01)
        shutil.rmtree(folder)
    thread.join(30)
    assert order == ["waits", "holds"]


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "音"})
    assert list(read_json(tmp_path / "a.json", "file", "")) == ["b", "a"]
    assert read_json(tmp_path / "a.json", "file", "") == {"b": [1, None], "a": "音"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is no search: a.json is missing; give another"),
        (b"", "is no search: a.json: Expecting value"),
        (b'{"a": [1', "is no search: a.json: Expecting"),
        (b"[1, 2]", "is no search: a.json holds no object; give another"),
        (b"\xff\xfe{}", "is no search: a.json: 'utf-8' codec"),
        (b"[" * 100_000, "is no search: a.json: "),
    ],
)
def test_a_file_without_a_json_object_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RequestError, match=reason):
        read_json(tmp_path / "a.json", "search", "give another")


def test_csv_has_a_header_and_plain_line_ends(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, "x,y"]])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,"x,y"\n'


# --- places to write ---


def refusal(check: Callable[..., None], *args: object) -> str:
    with pytest.raises(RequestError) as error:
        check(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["new", "new/and/deep", "there"])
def test_a_folder_that_can_be_written_is_not_changed(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    check_output_folder("--out", tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_file_that_can_be_written_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("kept")
    for name in ("there.csv", "new.csv", "NEW.CSV"):
        check_output_file("--out", tmp_path / name, ".csv", ".parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "kept"


def test_relative_places_are_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output_file("--out", Path("a.csv"))
    check_output_folder("--out", Path("a/b"))
    check_output_folder("--out", Path())
    Path("file").touch()
    assert refusal(check_output_folder, "--out", Path("file/a")) == (
        "--out must be a folder, but file is a file: give another"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("file", "--out must be a folder, but {0}/file is a file: give another"),
        ("file/a/b", "--out must be a folder, but {0}/file is a file: give another"),
        ("link/a", "--out must be a folder, but {0}/link is a link to nothing: give another"),
        ("x" * 300, "cannot be written: a name in it is too long: give a shorter one"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert text.format(tmp_path) in refusal(check_output_folder, "--out", tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "--out must end in .csv or .parquet, but it is {0}/a.txt: give such a file"),
        ("no/a.csv", "folder that exists, but {0}/no does not exist: make it, or give another"),
        ("file/a.csv", "in a folder that exists, but {0}/file is a file: give another"),
        ("a.csv", "in a folder that exists, but it is a folder: give a file in it"),
        ("pipe.csv", "in a folder that exists, but it is a device: give another"),
        (f"{'x' * 250}.csv", "cannot be written: a name in it is too long: give a shorter one"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    message = refusal(check_output_file, "--out", tmp_path / name, ".csv", ".parquet")
    assert text.format(tmp_path) in message


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("ro", "{0} is on a read-only file system: give a place on another one"),
        ("size=4k", "the disk of {0} is full: free some space, or give a place on another disk"),
    ],
)
def test_a_file_system_that_takes_nothing_is_refused(
    tmp_path: Path, check: Callable[..., None], options: str, text: str
) -> None:
    with mounted(tmp_path / "disk", options) as disk:
        if options != "ro":
            (disk / "filling").write_bytes(bytes(4096))
        message = refusal(check, "--out", disk / "a")
        assert message == f"--out {disk}/a cannot be written: {text.format(disk)}"
        assert [path.name for path in disk.iterdir() if path.name != "filling"] == []


@pytest.mark.parametrize(
    ("check", "name", "place"),
    [
        ("check_output_folder", "closed", "closed"),
        ("check_output_folder", "closed/new", "closed"),
        ("check_output_folder", "hidden/new/one", "hidden"),
        ("check_output_file", "closed/new.csv", "closed"),
        ("check_output_file", "kept.csv", "kept.csv"),
    ],
)
def test_a_place_without_permission_is_refused(
    tmp_path: Path, check: str, name: str, place: str
) -> None:
    """In another process, as root, who runs many tests, has permission everywhere."""
    for folder, mode in (("closed", 0o555), ("hidden", 0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(mode)
    (tmp_path / "kept.csv").touch(0o444)
    code = (
        f"from pathlib import Path; from mgc_ray.data.files import {check}\n"
        f"{check}('--out', Path({name!r}))"
    )
    done = subprocess.run(
        without_rights(sys.executable, "-B", "-c", code),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    reason = done.stderr.splitlines()[-1]
    assert f"--out {name} cannot be written: no permission to write to " in reason
    assert f"{place}: change its permissions, or give another place" in reason


def test_a_file_that_nobody_may_change_is_refused(tmp_path: Path) -> None:
    """Renaming another file to it would fail in the end, also for root."""
    kept = tmp_path / "kept.csv"
    kept.touch()
    if subprocess.run(["chattr", "+i", kept], capture_output=True).returncode:
        pytest.skip("this file system knows no file that cannot be changed")
    try:
        assert "no permission to write to" in refusal(check_output_file, "--out", kept)
    finally:
        subprocess.run(["chattr", "-i", kept], check=True)


# --- a loss of power, a kill ---


def test_what_is_written_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(file: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    def noted_replace(source: Path, target: Path) -> None:
        done.append(("rename", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = tmp_path / "a.json"
    write_json(path, {})
    temporary = str(partial_path(path))
    assert done == [("sync", temporary), ("rename", temporary), ("sync", str(tmp_path))]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_and_the_old_one_stands_until_then(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:  # as on a file system that cannot
        monkeypatch.setattr(files, "_exchanged", lambda a, b: False)
    folder = tmp_path / "ensemble"
    for content in ("old", "new"):
        new = partial_path(folder)
        (new / "members").mkdir(parents=True)
        (new / "members/a").write_text(content)
        if content == "new":
            (folder / "only in the old").touch()
        replace_folder(new, folder)
        assert [p.name for p in tmp_path.iterdir()] == ["ensemble"]
        assert (folder / "members/a").read_text() == content
        assert not (folder / "only in the old").exists()


@pytest.mark.parametrize("read", [read_json, is_damaged])
def test_a_pipe_is_no_file_and_reading_it_does_not_wait(
    tmp_path: Path, read: Callable[..., object]
) -> None:
    os.mkfifo(tmp_path / "a.json")
    if read is read_json:
        with pytest.raises(RequestError, match="it is not a file"):
            read_json(tmp_path / "a.json", "search", "give another")
    else:
        assert is_damaged(tmp_path / "a.json")
    assert not is_damaged(tmp_path / "nothing")
