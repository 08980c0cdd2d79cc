"""Files exchanged by a folder, and by a bucket behind a real S3 protocol."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.reach import Reach
from mgc_ray.data.storage import Exchange, Storage, located, scratch, stand_in
from tests.s3 import KEYS, s3_server

PORT = 5078


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server("127.0.0.1", PORT) as uri:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield uri


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(str(tmp_path / "storage"))
    uri: str = request.getfixturevalue("bucket")
    return Storage(uri.replace("here", f"here-{tmp_path.name}"))


def test_a_folder_comes_out_as_it_was_put_in(storage: Storage, tmp_path: Path) -> None:
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


def test_it_goes_to_other_processes_without_keys(storage: Storage, tmp_path: Path) -> None:
    sent = pickle.dumps(storage)
    assert b"secret" not in sent
    (tmp_path / "file").write_text("sent")
    storage.put(tmp_path / "file", "file")
    assert pickle.loads(sent).exists("file")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://key:secret@music/here", "must not hold an access key"),
        ("nothing://music", "cannot be used"),
        (f"s3://no-bucket/x?scheme=http&endpoint_override=127.0.0.1:{PORT}", "cannot be used"),
        ("/proc/nothing", "cannot be used"),
    ],
)
def test_what_cannot_be_a_storage_is_refused(uri: str, reason: str, bucket: str) -> None:
    with pytest.raises(RequestError, match=reason) as error:
        Storage(uri)
    assert "secret" not in str(error.value)


def test_a_task_elsewhere_sends_what_the_driver_fetches(storage: Storage, tmp_path: Path) -> None:
    driver = Exchange(tmp_path / "results/a", storage, "a")
    there = pickle.loads(pickle.dumps(driver)).inner("trials").elsewhere()
    assert not there.folder.is_relative_to(tmp_path)
    (there.folder / "gru-0000").mkdir(parents=True)
    (there.folder / "gru-0000/weights").write_text("learnt")
    there.send("gru-0000")
    there.clear("gru-0000")
    assert not (there.folder / "gru-0000").exists()
    driver.fetch("trials/gru-0000")
    assert (tmp_path / "results/a/trials/gru-0000/weights").read_text() == "learnt"
    driver.delete("trials/gru-0000")
    assert storage.files("") == []
    assert not (tmp_path / "results/a/trials/gru-0000").exists()


def test_without_a_storage_a_task_works_in_the_folder_itself(tmp_path: Path) -> None:
    driver = Exchange(tmp_path, None)
    there = driver.inner("trials").elsewhere()
    assert there.folder == tmp_path / "trials"
    there.folder.mkdir()
    (there.folder / "kept").write_text("seen by all")
    there.send("kept")
    there.clear("kept")
    assert (tmp_path / "trials/kept").exists()


def test_tracks_are_reached_by_copies_that_do_not_stay(storage: Storage, tmp_path: Path) -> None:
    song = tmp_path / "a song.wav"
    song.write_bytes(b"music")
    reach = Reach(storage, "tracks")
    done: list[int] = []
    reach.send([str(song), str(tmp_path / "missing.wav")], done.append)
    assert done == [1, 2]
    with reach(str(song)) as place:
        assert place == str(song)  # this node sees it
    song.unlink()
    with reach(str(song)) as place:
        assert Path(place).read_bytes() == b"music"
        assert place.endswith(".wav")
        assert Path(place).is_relative_to(scratch())
    assert not Path(place).exists()
    with reach(str(tmp_path / "missing.wav")) as place:
        assert place == str(tmp_path / "missing.wav")  # which then is no such file
    reach.end()
    assert storage.files("tracks") == []


def test_a_copy_stands_in_for_weights_of_another_node(tmp_path: Path) -> None:
    assert located("/other/node/weights") == "/other/node/weights"
    stand_in("/other/node/weights", tmp_path)
    assert located("/other/node/weights") == str(tmp_path)
