"""Files exchanged by a folder, and by a bucket behind a real S3 protocol."""

import os
import pickle
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.storage import SharedFolder, Storage, local_path, use_copy
from tests.data.conftest import PORT


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
        ("nothing://music", "cannot be used"),
        ("s3://no-bucket/x?scheme=http&endpoint_override=127.0.0.1:PORT", "cannot be used"),
        ("/proc/nothing", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(uri: str, reason: str, bucket: str) -> None:
    with pytest.raises(RequestError, match=reason) as error:
        Storage(uri.replace("PORT", str(PORT)))
    assert "secret" not in str(error.value)


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
