"""Files that are complete or absent, JSON, CSV and the lock of a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.files import (
    LOCK,
    atomic_write,
    delete_partial_files,
    exclusive_lock,
    partial_path,
    read_json,
    write_csv,
    write_json,
)


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
