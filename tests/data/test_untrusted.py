"""Links, pipes, names and sizes in what strangers pass on."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.data import untrusted
from mgc_ray.data.files import read_json
from mgc_ray.data.untrusted import check_folder, leads_out, parse_json, read_arrays, read_table

# ---- folders ----


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "members" / "a").mkdir(parents=True)
    (folder / "ensemble.json").write_text("{}")
    (folder / "members" / "a" / "config.json").write_text("{}")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "id_rsa").write_text("secret")
    return folder


def test_a_folder_of_files_and_links_within_it_may_be_read(model: Path) -> None:
    (model / "members" / "b").symlink_to("a")
    (model / "copy.json").symlink_to(model / "ensemble.json")
    check_folder(model, "ensemble.json")
    model.with_name("link").symlink_to(model)
    check_folder(model.with_name("link"), "ensemble.json")  # the user gave it


@pytest.mark.parametrize(
    "target", ["../secret/id_rsa", "../secret", "/etc/passwd", "..", "gone/../.."]
)
@pytest.mark.parametrize("place", ["ensemble.json", "members/a/model.safetensors", "members/b"])
def test_a_link_out_of_a_folder_is_refused(model: Path, place: str, target: str) -> None:
    (model / place).unlink(missing_ok=True)
    source = (
        target
        if target.startswith("/")
        else os.path.relpath(model / target, (model / place).parent)
    )
    (model / place).symlink_to(source)
    with pytest.raises(
        RequestError, match=f"but {place} in it is a link to .*outside of it: delete"
    ):
        check_folder(model, "ensemble.json")


def test_a_pipe_in_a_folder_is_refused(model: Path) -> None:
    os.mkfifo(model / "members" / "a" / "model.safetensors")
    with pytest.raises(RequestError, match=r"model\.safetensors in it is neither a file nor a"):
        check_folder(model, "ensemble.json")


def test_a_folder_that_is_something_else_is_not_searched(model: Path) -> None:
    (model / "link").symlink_to("/etc/passwd")
    check_folder(model, "search.json")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "leads"),
    [
        *((one, False) for one in ("a.mp3", "a/b.mp3", "..a/b..", "a/...", "", ".", "a\\..\\b")),
        *((one, True) for one in ("..", "../a", "a/..", "a/../b", "/a", "//a", "a\0", None, 3)),
    ],
)
def test_a_name_that_leads_out_of_its_folder_is_recognised(name: object, leads: bool) -> None:
    assert leads_out(name) == leads


def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    os.mkfifo(path)
    with pytest.raises(RequestError, match=r"is no dataset: dataset\.json: it is not a file"):
        read_json(path, "dataset", "make it")
    with pytest.raises(OSError, match="it is not a file"):
        read_table(path)
    with pytest.raises(ValueError, match="it is not a file"):
        read_arrays(path)


def test_json_of_64_levels_is_read_and_of_more_is_refused(tmp_path: Path) -> None:
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert parse_json("3") == 3
    assert parse_json("[" * 63 + "]" * 63) is not None
    for depth in (65, 900, 200_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            with pytest.raises(ValueError, match="nested more than 64 levels deep"):
                parse_json(opening * depth + "1" + closing * depth)


def test_json_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1 << 30)  # it takes no space on the disk
    with pytest.raises(RequestError, match=r"it has 1024 MiB, more than 64; make it"):
        read_json(tmp_path / "a.json", "dataset", "make it")


def test_arrays_are_read_and_a_bomb_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rows=np.arange(3), seconds=2.5)
    found = read_arrays(tmp_path / "a.npz")
    assert found["rows"].tolist() == [0, 1, 2]
    assert float(found["seconds"]) == 2.5
    bomb = tmp_path / "bomb.npz"
    header = np.lib.format.magic(1, 0)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as entry:
        entry.write(header)
        for _ in range(600):
            entry.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="it would take more than 512 MiB"):
        read_arrays(bomb)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"{}" * 100])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        read_arrays(tmp_path / "a.npz")


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match="is damaged"):
        read_arrays(tmp_path / "a.npz")


def test_tables_are_read_and_a_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"a": range(1000), "b": ["x"] * 1000}).replace_schema_metadata({"k": "v"})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").equals(table, check_metadata=True)
    assert read_table(tmp_path / "a.parquet", ["b"]).column_names == ["b"]
    pq.write_table(table[:0], tmp_path / "empty.parquet")
    assert read_table(tmp_path / "empty.parquet").num_rows == 0
    monkeypatch.setattr(untrusted, "LARGEST", 1 << 24)
    text = "x" * (1 << 16)  # one value, two thousand times: 128 MiB from some kilobytes
    pq.write_table(pa.table({"a": pa.array([text] * 2000)}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 19
    with pytest.raises(OSError, match="it would take more than 16 MiB"):
        read_table(tmp_path / "bomb.parquet")
