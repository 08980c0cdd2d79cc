"""Files exchanged by a folder, and by a bucket behind a real S3 protocol."""

import errno
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import fs

from mgc_ray import RequestError
from mgc_ray.data.storage import (
    SharedFolder,
    Storage,
    StorageError,
    claims,
    local_path,
    next_claim,
    scratch,
    use_copy,
)
from tests.data.conftest import PORT
from tests.s3 import FaultyS3


def test_a_folder_is_stored_and_fetched(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "one.txt").write_text("one")
    (source / "a/b/two.bin").write_bytes(os.urandom(3 << 20))
    (source / "a/.half.123.tmp").write_text("half written")
    storage.put(source, "searches/first")
    assert storage.files("searches") == [
        "searches/first/a/b/two.bin",
        "searches/first/one.txt",
    ]
    assert storage.exists("searches/first/one.txt")
    assert not storage.exists("searches/first")
    assert storage.get("searches/first", tmp_path / "copy")
    assert (tmp_path / "copy/a/b/two.bin").read_bytes() == (source / "a/b/two.bin").read_bytes()
    assert not list((tmp_path / "copy").rglob(".*"))


def test_a_file_is_replaced_and_deleted(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("first", "second"):
        path.write_text(text)
        storage.put(path, "x/file")
    assert storage.get("x/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "second"
    storage.delete("x/file")
    assert storage.files("x") == []
    assert not storage.get("x/file", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    storage.delete("x")  # nothing is there, which is no error


def test_a_storage_is_pickled_without_keys(storage: Storage, tmp_path: Path) -> None:
    sent = pickle.dumps(storage)
    assert b"secret" not in sent
    (tmp_path / "file").write_text("sent")
    storage.put(tmp_path / "file", "file")
    assert pickle.loads(sent).exists("file")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://key:secret@music/here", "must not contain an access key"),
        ("s3://:secret@music/here", "must not contain an access key"),
        ("s3://music/here?secret_key=secret", "must not contain an access key"),
        ("abfss://music@account/here?client_secret=secret", "must not contain an access key"),
        ("abfss://music:secret@account/here", "must not contain an access key"),
        ("abfss://music@account/here?sas_token=secret", "must not contain an access key"),
        ("gs://music/here?access_token=secret", "must not contain an access key"),
        ("gs://secret@music/here", "must not contain an access key"),
        ("nothing://music", "cannot be used"),
        ("s3://no-bucket/x?scheme=http&endpoint_override=127.0.0.1:PORT", "cannot be used"),
        ("/proc/nothing", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(uri: str, reason: str, bucket: str) -> None:
    with pytest.raises(RequestError, match=reason) as error:
        Storage(uri.replace("PORT", str(PORT)))
    assert "secret" not in str(error.value)


def test_the_usual_address_of_azure_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def from_uri(uri: str) -> tuple[fs.FileSystem, str]:
        asked.append(uri)
        raise OSError("no such account")

    monkeypatch.setattr(fs, "FileSystem", SimpleNamespace(from_uri=from_uri))
    with pytest.raises(RequestError, match="no such account"):
        Storage("abfss://music@account.dfs.core.windows.net/here")
    assert asked


def test_names_that_lead_out_of_a_folder_are_not_fetched(
    tmp_path: Path,
) -> None:
    there = [
        SimpleNamespace(path=f"music/a/{n}", base_name=n[-1], size=1, type=fs.FileType.File)
        for n in ("x", "../../y")
    ]

    def get_file_info(asked: object) -> object:
        return there if isinstance(asked, fs.FileSelector) else there[0]

    storage = Storage(str(tmp_path / "bucket"))
    there[0].type = fs.FileType.Directory
    storage._fs, storage._root = SimpleNamespace(get_file_info=get_file_info), "music"
    with pytest.raises(RequestError, match=r"must not lead out of it, but 'a/\.\./\.\./y' does"):
        storage.get("a", tmp_path / "here")


def test_a_link_in_place_of_the_scratch_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = scratch()
    folder.rmdir()
    (tmp_path / "mine").mkdir()
    folder.symlink_to(tmp_path / "mine")
    with pytest.raises(RequestError, match="belongs to another user"):
        scratch()


def test_a_task_on_another_node_sends_what_the_driver_fetches(
    storage: Storage, tmp_path: Path
) -> None:
    driver = SharedFolder(tmp_path / "results/a", storage, "a")
    task = pickle.loads(pickle.dumps(driver)).subfolder("trials").on_this_node()
    assert not task.folder.is_relative_to(tmp_path)
    (task.folder / "gru-0000").mkdir(parents=True)
    (task.folder / "gru-0000/weights").write_text("learnt")
    task.send("gru-0000")
    task.clear("gru-0000")
    assert not (task.folder / "gru-0000").exists()
    assert driver.missing(["trials/gru-0000/weights", "trials/gru-0001/weights"]) == [
        "trials/gru-0001/weights"
    ]
    driver.fetch("trials/gru-0000")
    assert (tmp_path / "results/a/trials/gru-0000/weights").read_text() == "learnt"
    driver.delete("trials/gru-0000")
    assert storage.files("") == []
    assert not (tmp_path / "results/a/trials/gru-0000").exists()


def test_without_a_storage_a_task_works_in_the_folder_itself(tmp_path: Path) -> None:
    driver = SharedFolder(tmp_path, None)
    task = driver.subfolder("trials").on_this_node()
    assert task.folder == tmp_path / "trials"
    task.folder.mkdir()
    (task.folder / "kept").write_text("seen by all")
    task.send("kept")
    task.clear("kept")
    assert (tmp_path / "trials/kept").exists()
    assert driver.missing(["trials/other"]) == []


def test_a_copy_is_read_instead_of_a_path_on_another_node(tmp_path: Path) -> None:
    assert local_path("/other/node/weights") == "/other/node/weights"
    use_copy("/other/node/weights", tmp_path)
    assert local_path("/other/node/weights") == str(tmp_path)


# ---- faults ----


@pytest.fixture
def faulty(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A bucket that fails as it is told to, and is tried for some seconds only."""
    monkeypatch.setattr("mgc_ray.data.storage._PATIENCE", 8.0)
    monkeypatch.setattr("mgc_ray.data.storage._SILENCE", 6.0)
    server = FaultyS3(PORT)
    yield server
    server.close()


SLOW = [pytest.param(fault, marks=pytest.mark.slow) for fault in (503, 403, "silence", "cut")]


@pytest.mark.parametrize("fault", [500, "torn", *SLOW])
def test_what_fails_for_a_while_is_tried_again(
    faulty: FaultyS3, tmp_path: Path, fault: int | str
) -> None:
    storage = Storage(faulty.uri(f"again-{fault}"))
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    faulty.fail(fault, 1)
    storage.put(tmp_path / "file", "x/file")
    faulty.fail(fault, 1)
    assert storage.files("x") == ["x/file"]
    faulty.fail(fault, 1)
    assert storage.get("x", tmp_path / "copy")
    assert (tmp_path / "copy/file").read_bytes() == content
    faulty.fail(fault, 1, only="GET")
    assert storage.get("x", tmp_path / "copy")
    assert (tmp_path / "copy/file").read_bytes() == content
    faulty.fail(fault, 1)
    storage.delete("x")
    assert storage.files("x") == []


@pytest.mark.slow  # it waits as long as it does before it gives up
@pytest.mark.parametrize("fault", [500, 403, "silence"])
def test_what_fails_for_long_is_an_error_of_the_machine_in_one_line(
    faulty: FaultyS3, tmp_path: Path, fault: int | str
) -> None:
    storage = Storage(faulty.uri(f"long-{fault}"))
    (tmp_path / "file").touch()
    faulty.fail(fault)
    for call in (
        lambda: storage.put(tmp_path / "file", "file"),
        lambda: storage.get("file", tmp_path / "copy"),
    ):
        started = time.monotonic()
        with pytest.raises(StorageError, match="the storage cannot be used") as error:
            call()
        assert time.monotonic() - started < 30
        assert error.value.errno == errno.EIO
        assert len(str(error.value).splitlines()) == 1
        assert pickle.loads(pickle.dumps(error.value)).args == error.value.args
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("fault", [403, "silence"])
def test_a_storage_that_does_not_answer_is_refused_in_time(
    faulty: FaultyS3, fault: int | str
) -> None:
    faulty.fail(fault)
    started = time.monotonic()
    with pytest.raises(RequestError, match="cannot be used"):
        Storage(faulty.uri("x"))
    assert time.monotonic() - started < 15


def test_google_storage_on_a_closed_port_is_refused_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mgc_ray.data.storage._SILENCE", 3.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(RequestError, match="cannot be used"):
        Storage(f"gs://music/here?scheme=http&endpoint_override=127.0.0.1:{port}")
    assert time.monotonic() - started < 40


def test_a_source_that_breaks_leaves_no_part_of_an_object(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        storage._put_file(tmp_path / "folder", "file")
    assert storage.files("") == []
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file that cannot be read, /proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        storage._put_file(Path("/proc/self/mem"), "file")
    assert storage.files("") == []


# ---- who writes a search ----


def test_of_drivers_that_come_at_once_at_most_one_gets_a_name(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgc_ray.data.storage._RIVAL_SECONDS", 3.0)
    outcomes: list[str] = []
    refusals: list[str] = []

    def come() -> None:
        claim = next_claim(storage, "a")
        try:
            claim.take()
            claim.check()
            outcomes.append(claim.name)
        except RequestError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert len(refusals) == 5
    assert all("another driver has just taken a in " in refusal for refusal in refusals)
    assert claims(storage, "a") == outcomes


def test_a_driver_that_thaws_does_not_write_what_another_has_taken_over(
    storage: Storage, tmp_path: Path
) -> None:
    def driver(folder: str, over: bool) -> SharedFolder:
        claim = next_claim(storage, "a")
        claim.take(over)
        (tmp_path / folder).mkdir()
        return SharedFolder(tmp_path / folder, storage, "a", claim)

    first = driver("first", over=False)
    (first.folder / "file").write_text("first")
    first.send("file")
    with pytest.raises(RequestError):
        driver("refused", over=False)
    second = driver("second", over=True)
    (first.folder / "file").write_text("thawed")
    for call in (first.send, first.delete, first.send_missing, first.subfolder("x").delete):
        with pytest.raises(StorageError, match="another driver has taken a over, by --resume, so"):
            call("file")
        (first.folder / "file").write_text("thawed")
    second.fetch("file")
    assert (second.folder / "file").read_text() == "first"
    (second.folder / "file").write_text("second, longer")
    second.send_missing("file")
    second.fetch("file")
    assert (second.folder / "file").read_text() == "second, longer"


def test_copies_of_something_else_are_deleted_from_a_node(storage: Storage, tmp_path: Path) -> None:
    first = SharedFolder(tmp_path, storage, "a", identity="one").on_this_node()
    (first.folder / "trials").mkdir(parents=True)
    other = SharedFolder(tmp_path, storage, "b", identity="one").on_this_node()
    other.folder.mkdir(parents=True)
    assert SharedFolder(tmp_path, storage, "a", identity="one").on_this_node().folder.exists()
    second = SharedFolder(tmp_path, storage, "a", identity="two").on_this_node()
    assert not second.folder.exists()
    assert not first.folder.exists()
    assert other.folder.exists()
    other.folder.rmdir()
