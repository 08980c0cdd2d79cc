"""A whole library: what is predicted, what is known already, and what is made of it."""

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import mgc_ray.tuning.parallel
from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.corpus import write_corpus
from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
from mgc_ray.jobs import library
from mgc_ray.jobs.library import predict_library
from tests.commands import command

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty songs of two seconds in ten folders, and what else lies about in a library."""
    folder = tmp_path_factory.mktemp("library")
    write_corpus(folder, 2, seconds=2.0)
    (folder / "rock" / "cover.jpg").write_bytes(b"\xff\xd8")
    (folder / "rock" / "broken.mp3").write_text("no sound")
    (folder / "rock" / "nowhere.flac").symlink_to("gone.flac")
    (folder / ".trash").mkdir()
    shutil.copy(folder / "rock/rock.00000.wav", folder / ".trash" / "deleted.wav")
    (folder / "jazz" / "loop").symlink_to("..")
    odd = folder / "odd 日本" / b"caf\xe9 \n.wav".decode("utf-8", "surrogateescape")
    odd.parent.mkdir()
    shutil.copy(folder / "rock/rock.00001.wav", odd)
    return folder


@pytest.fixture
def music(songs: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, of the same sizes and times."""
    return Path(shutil.copytree(songs, tmp_path / "music", symlinks=True))


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(out).to_pylist()}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really predicted from now on."""
    predicted: list[str] = []
    real = mgc_ray.tuning.parallel.parallel_map

    def noting(files: Sequence[Any], function: Callable[[Any], Any], *sizes: int) -> Iterator[Any]:
        predicted.extend(file.shown for file in files)
        return real(files, function, *sizes)

    monkeypatch.setattr(mgc_ray.tuning.parallel, "parallel_map", noting)
    return predicted


@pytest.fixture(scope="module")
def done(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, library.Library]:
    out = tmp_path_factory.mktemp("out") / "genres.parquet"
    return out, predict_library(songs, out, shipped_model(), playlists=out.parent / "lists")


def test_every_song_has_a_row_with_what_predict_says_of_it(
    songs: Path, done: tuple[Path, library.Library]
) -> None:
    out, found = done
    table = rows(out)
    assert len(table) == found.files == 23
    assert "odd 日本/caf\\xe9 \n.wav" in table
    ensemble = load_ensemble(shipped_model())
    for path in ("rock/rock.00000.wav", "jazz/jazz.00001.wav"):
        said, row = ensemble.predict(songs / path), table[path]
        assert row["genre"] == next(iter(said))
        assert row["probability"] == pytest.approx(said[row["genre"]], abs=1e-6)
        for genre, share in said.items():
            assert row[f"prob_{genre}"] == pytest.approx(share, abs=1e-6)
        assert row["reason"] is None
    assert sum(found.genres.values()) == 21


def test_what_cannot_be_read_is_listed_with_its_reason(
    songs: Path, done: tuple[Path, library.Library]
) -> None:
    out, found = done
    table = rows(out)
    assert [path for path, _ in found.unread] == ["rock/broken.mp3", "rock/nowhere.flac"]
    for path, reason in found.unread:
        with pytest.raises(UnusableTrackError) as error:
            load_ensemble(shipped_model()).predict(songs / path)
        assert table[path]["reason"] == reason == str(error.value)
        assert table[path]["genre"] is None


def test_playlists_have_the_surest_songs_first(
    songs: Path, done: tuple[Path, library.Library]
) -> None:
    out, found = done
    table = rows(out)
    listed: set[Path] = set()
    for path in (out.parent / "lists").iterdir():
        assert path.stem in found.genres
        first, title, *lines = path.read_text("utf-8").splitlines()
        assert (first, title) == ("#EXTM3U", f"#PLAYLIST:{path.stem}")
        order = []
        for said, song in zip(lines[::2], lines[1::2], strict=True):
            place = (path.parent / song).resolve()
            assert place.is_file()
            listed.add(place)
            row = table[str(place.relative_to(songs.resolve()))]
            assert row["genre"] == path.stem
            assert said == f"#EXTINF:-1,{place.stem} ({row['probability']:.0%})"
            order.append(row["probability"])
        assert order == sorted(order, reverse=True)
    assert len(listed) == 20  # all but the one with a line break in its name


def test_a_second_run_does_what_is_new_has_changed_or_could_not_be_read(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "genres.csv"
    predict_library(music, out, shipped_model())
    first = out.read_bytes()
    predicted = counted(monkeypatch)
    again = predict_library(music, out, shipped_model())
    assert predicted == ["rock/broken.mp3", "rock/nowhere.flac"]
    assert again.known == 21
    assert out.read_bytes() == first
    predicted.clear()
    shutil.copy(music / "pop/pop.00000.wav", music / "rock/broken.mp3")  # a WAV, whatever its name
    (music / "rock/nowhere.flac").unlink()
    shutil.copy(music / "pop/pop.00000.wav", music / "jazz/new.wav")
    os.utime(music / "jazz/jazz.00000.wav", ns=(1, 1))
    found = predict_library(music, out, shipped_model())
    assert predicted == ["jazz/jazz.00000.wav", "jazz/new.wav", "rock/broken.mp3"]
    assert (found.files, found.known, found.unread) == (23, 20, [])
    with out.open(newline="") as file:
        table = {row["path"]: row for row in csv.DictReader(file)}
    assert "rock/nowhere.flac" not in table
    assert table["jazz/new.wav"]["genre"] == table["pop/pop.00000.wav"]["genre"]


def test_an_interrupted_run_goes_on_where_it_stopped(
    songs: Path, tmp_path: Path, done: tuple[Path, library.Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_ROWS_A_PART", 4)
    real = mgc_ray.tuning.parallel.parallel_map

    def cut_off(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(real(*arguments)):
            if number == 10:
                raise KeyboardInterrupt
            yield row

    out = tmp_path / "genres.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(mgc_ray.tuning.parallel, "parallel_map", cut_off)
        with pytest.raises(KeyboardInterrupt):
            predict_library(songs, out, shipped_model())
    assert not out.exists()
    assert len(list((tmp_path / "genres.parquet.parts").glob("*.parquet"))) == 2
    predicted = counted(monkeypatch)
    predict_library(songs, out, shipped_model())
    assert 23 - 8 <= len(predicted) <= 23 - 8 + 2  # the two that cannot be read may be among them
    assert rows(out) == rows(done[0])
    assert not (tmp_path / "genres.parquet.parts").exists()


def test_another_model_predicts_all_of_it_again(
    songs: Path, home: Path, tmp_path: Path, done: tuple[Path, library.Library]
) -> None:
    out = tmp_path / "genres.parquet"
    shutil.copy(done[0], out)
    found = predict_library(songs, out, home / "results/first/ensemble")
    assert found.known == 0
    assert {row["model"] for row in rows(out).values()} != {
        row["model"] for row in rows(done[0]).values()
    }


def test_the_command_says_what_it_found(music: Path, tmp_path: Path) -> None:
    done = command("predict", "music", "--out", "g.csv", "--json", cwd=tmp_path, status=1)
    assert "predicting 23/23 files" in done.stderr
    assert "23 files (0 known before)" in done.stderr
    assert "2 could not be read (why: column reason of g.csv)" in done.stderr
    assert '"files": 23' in done.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["music"], "music is a folder: add --out genres.parquet"),
        (["music", "music", "--out", "g.csv"], "--out is for one folder, but 2 are named"),
        (["music", "--out", "g.txt"], "--out must end in .parquet or .csv, but it is g.txt"),
        (["music", "--out", "no/g.csv"], "must be a file in a folder that exists"),
        (["music/a.wav", "--playlists", "p"], "--playlists is for a whole library"),
        (["empty", "--out", "g.csv"], "has no file (.aif,"),
    ],
)
def test_what_cannot_be_done_is_refused(options: list[str], text: str, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "empty").mkdir()
    done = command("predict", *options, cwd=tmp_path, status=2)
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_of_something_else_is_not_written_over(songs: Path, tmp_path: Path) -> None:
    out = tmp_path / "accounts.csv"
    out.write_text("name,amount\na,1\n")
    with pytest.raises(RequestError, match="is no table of genres that this program wrote"):
        predict_library(songs, out, shipped_model())
    assert out.read_text() == "name,amount\na,1\n"
