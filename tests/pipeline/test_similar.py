"""Similar songs: which are found for which song, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mgc_ray
from mgc_ray import RequestError
from mgc_ray.corpus.files import write_corpus
from mgc_ray.ensembling.saved import load_ensemble, shipped_model
from mgc_ray.pipeline.library_table import Origin, table_schema, with_origin, write_table
from tests.commands import command

# prints CPU seconds, which slow libraries were imported, and the result
IN_A_PROCESS = """
import json, sys, time
import mgc_ray
from pathlib import Path
found = mgc_ray.similar(song=sys.argv[1], table=Path(sys.argv[2]))
slow = [library for library in ("torch", "ray", "pandas") if library in sys.modules]
print(json.dumps([time.process_time(), slow, [one.path for one in found.songs]]))
"""
LATIN_1 = b"caf\xe9.wav".decode("utf-8", "surrogateescape")


def write_made(
    path: Path,
    vectors: dict[str, tuple[float, ...]],
    music: Path = Path("/music"),
    model: str = "made",
) -> None:
    """A table of songs with these embeddings; one without any could not be read."""
    rows = [
        {
            "path": name,
            "genre": "rock" if vector else None,
            "reason": None if vector else "not audio",
            "size": 5,
            "modified_ns": 1,
            "model": model,
            "embedding": vector or None,
        }
        for name, vector in sorted(vectors.items())
    ]
    table = pa.Table.from_pylist(rows, schema=table_schema(("rock",), 2))
    write_table(path, with_origin(table, Origin(str(music), "/no/model")))


def angle(degrees: float) -> tuple[float, ...]:
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Songs at angles to one another."""
    songs = {"a.mp3": 0, "far.mp3": 180, "near.mp3": 60, "nearer.mp3": 330, "x\\xe9.mp3": 90}
    vectors = {name: angle(degrees) for name, degrees in songs.items()}
    write_made(tmp_path / "t.parquet", vectors | {"bad.mp3": ()})
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("name", ["../secret.mp3", "a/../../secret.mp3", "/etc/passwd", "a\0.mp3"])
def test_a_table_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Their tags would be read, and a playlist would have them."""
    write_made(tmp_path / "t.parquet", {"a.mp3": angle(0), name: angle(10)}, tmp_path / "music")
    with pytest.raises(RequestError, match=r"is damaged or .* is not below its folder"):
        mgc_ray.similar(song="a.mp3", table=tmp_path / "t.parquet")


def test_songs_are_listed_by_their_cosine_without_the_song_itself(made: Path) -> None:
    found = mgc_ray.similar(song="a.mp3", table=made)
    assert found.song == "a.mp3"
    assert [one.path for one in found.songs] == ["nearer.mp3", "near.mp3", "x\\xe9.mp3", "far.mp3"]
    assert [one.rank for one in found.songs] == [1, 2, 3, 4]
    expected = [np.sqrt(0.75), 0.5, 0, -1]
    assert [one.similarity for one in found.songs] == pytest.approx(expected, abs=1e-6)
    assert {(one.genre, one.artist) for one in found.songs} == {("rock", "")}
    assert len(mgc_ray.similar(song="a.mp3", table=made, count=2).songs) == 2


def test_a_listed_song_needs_a_second_and_neither_model_nor_pytorch(made: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, "a.mp3", made],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, slow, paths = json.loads(done.stdout)
    assert slow == []
    assert seconds < 1.5
    assert paths[0] == "nearer.mp3"


def test_a_listed_song_is_found_as_a_file_from_anywhere(tmp_path: Path) -> None:
    music = tmp_path / "music"
    (music / "album").mkdir(parents=True)
    song = music / "album" / LATIN_1
    song.write_bytes(b"12345")
    os.utime(song, ns=(1, 1))
    (tmp_path / "link").symlink_to("music")
    table = tmp_path / "t.parquet"
    write_made(table, {"album/caf\\xe9.wav": angle(0), "b.mp3": angle(50)}, music)
    for given in (song, tmp_path / "link" / "album" / LATIN_1, "album/caf\\xe9.wav"):
        assert [one.path for one in mgc_ray.similar(song=str(given), table=table).songs] == [
            "b.mp3"
        ]
    # it has changed: it has to be read, for which the ensemble is needed
    song.write_bytes(b"123456")
    with pytest.raises(RequestError, match="but it is not in /no/model any more: give it by"):
        mgc_ray.similar(song=str(song), table=table)


def test_a_playlist_leads_to_the_files(tmp_path: Path) -> None:
    music = tmp_path / "moved"
    music.mkdir()
    (music / LATIN_1).touch()
    table = tmp_path / "t.parquet"
    write_made(table, {"a.mp3": angle(0), "b.mp3": angle(50), "caf\\xe9.wav": angle(20)})
    playlist = tmp_path / "like.m3u8"
    done = command(
        *("similar", "a.mp3", "--in", table, "--music", music, "--playlist", playlist),
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == [
        "  1  0.940 caf\\xe9.wav (rock)",
        "  2  0.643 b.mp3 (rock)",
    ]
    assert playlist.read_bytes().splitlines() == [
        b"#EXTM3U",
        b"#PLAYLIST:Similar to a",
        b"#EXTINF:-1,caf\\xe9 (rock, 0.94)",
        b"moved/caf\xe9.wav",
        b"#EXTINF:-1,b (rock, 0.64)",
        b"moved/b.mp3",
    ]


@pytest.mark.parametrize(
    ("song", "text"),
    [
        ("b.mp3", "b.mp3 is neither: give another"),
        ("EAR", "EAR is neither (it lists near.mp3, nearer.mp3): give another"),
        ("bad.mp3", "bad.mp3 has no embedding, as it could not be read (not audio)"),
    ],
)
def test_a_song_that_is_neither_a_file_nor_listed_is_refused(
    song: str, text: str, made: Path
) -> None:
    done = command("similar", song, "--in", made, cwd=made.parent, status=2)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_table_with_embeddings_is_refused(made: Path, tmp_path: Path) -> None:
    without = pa.Table.from_pylist([{"path": "a.mp3"}], schema=table_schema(("rock",)))
    write_table(tmp_path / "without.parquet", without)
    with pytest.raises(RequestError, match=r"has no embeddings: make it by mgc-ray pred"):
        mgc_ray.similar(song="a.mp3", table=tmp_path / "without.parquet")
    made.write_bytes(made.read_bytes()[:-200])
    with pytest.raises(RequestError, match=r"has no embeddings|is damaged"):
        mgc_ray.similar(song="a.mp3", table=made)
    embedded = pa.Table.from_pylist([{"path": "a.mp3"}], schema=table_schema(("rock",), 2))
    write_table(made, embedded)  # it says not where the music is
    with pytest.raises(RequestError, match="is damaged or from another version"):
        mgc_ray.similar(song="a.mp3", table=made)


# ---- with a model ----


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """A folder with `music`, a copy `model` of the included one, and the table `songs.parquet`."""
    folder = tmp_path_factory.mktemp("library")
    write_corpus(folder / "music", 1, seconds=2.0)
    shutil.copytree(shipped_model(), folder / "model")
    options = ("--model", "model", "--out", "songs.parquet", "--embeddings")
    command("predict", "music", *options, cwd=folder)
    return folder


def test_any_other_song_is_embedded_by_the_ensemble_that_made_the_table(
    library: Path, tmp_path: Path
) -> None:
    table, song = library / "songs.parquet", tmp_path / "copy.wav"
    shutil.copy(library / "music/rock/rock.00000.wav", song)
    done = command("similar", song, "--in", table, "--count", 4, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    first, *others = found["songs"]
    assert found["song"] == str(song)
    assert first["path"] == "rock/rock.00000.wav"
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["genre"] == next(iter(load_ensemble(library / "model").predict(song)))
    listed = mgc_ray.similar(song="rock/rock.00000.wav", table=table, count=3)
    assert [one["path"] for one in others] == [one.path for one in listed.songs]


def test_a_table_of_another_ensemble_is_refused(library: Path, tmp_path: Path) -> None:
    table, song = library / "songs.parquet", tmp_path / "copy.wav"
    shutil.copy(library / "music/rock/rock.00000.wav", song)
    member = next((library / "model" / "members").iterdir())
    done = command("similar", song, "--in", table, "--model", member, cwd=tmp_path, status=2)
    assert "embeddings of different ensembles cannot be compared" in done.stderr
    assert done.stderr.count("\n") == 1
    same = shutil.copytree(library / "model", tmp_path / "moved")
    command("similar", song, "--in", table, "--model", same, cwd=tmp_path)


def test_a_song_that_cannot_be_read_is_refused(library: Path, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_text("no sound")
    table = library / "songs.parquet"
    done = command("similar", "song.mp3", "--in", table, cwd=tmp_path, status=2)
    assert "song.mp3: not audio, or corrupt" in done.stderr
