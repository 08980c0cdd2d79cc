"""A whole music library: which files are predicted, which were before, and what is written."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mgc_ray.tuning.tasks
from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.corpus.files import write_corpus
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.features import audio_features
from mgc_ray.ensembling.embedding import predict_and_embed
from mgc_ray.ensembling.saved import load_ensemble, shipped_model
from mgc_ray.models import register_family
from mgc_ray.pipeline import library
from mgc_ray.pipeline.library import predict_library
from mgc_ray.pipeline.library_table import read_earlier, table_schema, write_table
from tests.commands import command
from tests.made_models import Member, register_own_family, write_ensemble
from tests.places import DAMAGE

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty songs of 1.2 s in ten folders, with other files as libraries have them."""
    folder = tmp_path_factory.mktemp("library")
    write_corpus(folder, 2, seconds=1.2)
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
    """A copy of `songs` that may be changed, with the same sizes and times."""
    return Path(shutil.copytree(songs, tmp_path / "music", symlinks=True))


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(out).to_pylist()}


def record_predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which the paths of all files that are predicted from now on are added."""
    predicted: list[str] = []
    real = mgc_ray.tuning.tasks.parallel_map

    def recorded(
        files: Sequence[Any], function: Callable[[Any], Any], *sizes: int
    ) -> Iterator[Any]:
        predicted.extend(file.shown for file in files)
        return real(files, function, *sizes)

    monkeypatch.setattr(mgc_ray.tuning.tasks, "parallel_map", recorded)
    return predicted


def interrupt_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make the next run end as by Ctrl-C after so many songs."""
    real = mgc_ray.tuning.tasks.parallel_map

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(real(*arguments)):
            if number == count:
                monkeypatch.setattr(mgc_ray.tuning.tasks, "parallel_map", real)
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(mgc_ray.tuning.tasks, "parallel_map", interrupted)


@pytest.fixture(scope="module")
def finished(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, library.Library]:
    out = tmp_path_factory.mktemp("out") / "genres.parquet"
    return out, predict_library(songs, out, shipped_model(), playlists=out.parent / "lists")


def test_every_song_has_a_row_with_the_probabilities_that_predict_gives(
    songs: Path, finished: tuple[Path, library.Library]
) -> None:
    out, result = finished
    table = rows(out)
    assert result.files == 23
    assert len(table) == 25
    assert "odd 日本/caf\\xe9 \n.wav" in table
    ensemble = load_ensemble(shipped_model())
    for path in ("rock/rock.00000.wav", "jazz/jazz.00001.wav"):
        expected, row = ensemble.predict(songs / path), table[path]
        assert row["genre"] == next(iter(expected))
        assert row["probability"] == pytest.approx(expected[row["genre"]], abs=1e-6)
        for genre, share in expected.items():
            assert row[f"prob_{genre}"] == pytest.approx(share, abs=1e-6)
        assert row["reason"] is None
        assert row["short"] == "1.20 s, shorter than half a chunk (of 2.99 s)"
    assert sum(result.genres.values()) == 21
    assert result.short == 21


def test_a_file_that_cannot_be_read_is_listed_with_its_reason(
    songs: Path, finished: tuple[Path, library.Library]
) -> None:
    out, result = finished
    table = rows(out)
    assert [path for path, _ in result.unread] == ["rock/broken.mp3", "rock/nowhere.flac"]
    for path, reason in result.unread:
        with pytest.raises(UnusableTrackError) as error:
            load_ensemble(shipped_model()).predict(songs / path)
        assert table[path]["reason"] == reason == str(error.value)
        assert table[path]["genre"] is None


def test_a_file_that_is_left_out_is_listed_with_its_reason(
    finished: tuple[Path, library.Library],
) -> None:
    out, result = finished
    hidden = "is hidden: its name, or that of a folder it is in, begins with a dot"
    assert result.left_out == [
        (".trash/deleted.wav", hidden),
        ("jazz/loop", "is a link to a folder that it is in"),
    ]
    table = rows(out)
    assert all(table[path]["reason"] == reason for path, reason in result.left_out)
    assert result.no_audio == {".csv": 1, ".json": 1, ".jpg": 1}


def test_playlists_begin_with_the_most_certain_songs(
    songs: Path, finished: tuple[Path, library.Library]
) -> None:
    out, result = finished
    table = rows(out)
    listed: set[Path] = set()
    for path in (out.parent / "lists").iterdir():
        assert path.stem in result.genres
        first, title, *lines = path.read_text("utf-8").splitlines()
        assert (first, title) == ("#EXTM3U", f"#PLAYLIST:{path.stem}")
        order = []
        for extinf, location in zip(lines[::2], lines[1::2], strict=True):
            song = (path.parent / location).resolve()
            assert song.is_file()
            listed.add(song)
            row = table[str(song.relative_to(songs.resolve()))]
            assert row["genre"] == path.stem
            assert extinf == f"#EXTINF:-1,{song.stem} ({row['probability']:.0%})"
            order.append(row["probability"])
        assert order == sorted(order, reverse=True)
    assert len(listed) == 20  # all but the one with a line break in its name


def test_a_second_run_predicts_files_that_are_new_or_changed_or_could_not_be_read(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "genres.csv"
    predict_library(music, out, shipped_model())
    first = out.read_bytes()
    predicted = record_predicted(monkeypatch)
    again = predict_library(music, out, shipped_model())
    assert predicted == ["rock/broken.mp3", "rock/nowhere.flac"]
    assert again.known == 21
    assert out.read_bytes() == first
    predicted.clear()
    shutil.copy(music / "pop/pop.00000.wav", music / "rock/broken.mp3")  # a WAV, whatever its name
    (music / "rock/nowhere.flac").unlink()
    shutil.copy(music / "pop/pop.00000.wav", music / "jazz/new.wav")
    os.utime(music / "jazz/jazz.00000.wav", ns=(1, 1))
    third = predict_library(music, out, shipped_model())
    assert predicted == ["jazz/jazz.00000.wav", "jazz/new.wav", "rock/broken.mp3"]
    assert (third.files, third.known, third.unread) == (23, 20, [])
    with out.open(newline="") as file:
        table = {row["path"]: row for row in csv.DictReader(file)}
    assert "rock/nowhere.flac" not in table
    assert table["jazz/new.wav"]["genre"] == table["pop/pop.00000.wav"]["genre"]


@pytest.mark.parametrize("damage", ["", "empty", "zeros behind a half"])
def test_an_interrupted_run_continues_where_it_stopped(
    damage: str,
    songs: Path,
    tmp_path: Path,
    finished: tuple[Path, library.Library],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "_ROWS_PER_PART", 4)
    out = tmp_path / "genres.parquet"
    interrupt_after(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        predict_library(songs, out, shipped_model())
    assert not out.exists()
    parts = sorted((tmp_path / "genres.parquet.parts").glob("*.parquet"))
    assert len(parts) == 2
    if damage:
        DAMAGE[damage](parts[1])
    kept = 4 if damage else 8
    predicted = record_predicted(monkeypatch)
    predict_library(songs, out, shipped_model())
    # the two that cannot be read may be among them
    assert 23 - kept <= len(predicted) <= 23 - kept + 2
    assert rows(out) == rows(finished[0])
    assert not (tmp_path / "genres.parquet.parts").exists()


def test_another_model_predicts_all_files_again(
    songs: Path, tmp_path: Path, finished: tuple[Path, library.Library]
) -> None:
    out = tmp_path / "genres.parquet"
    shutil.copy(finished[0], out)
    member = next((shipped_model() / "members").iterdir())  # of the same genres
    assert predict_library(songs, out, member).known == 0
    assert {row["model"] for row in rows(out).values()} != {
        row["model"] for row in rows(finished[0]).values()
    }


# ---- embeddings ----


@pytest.fixture(scope="module")
def embedded(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with embeddings."""
    out = tmp_path_factory.mktemp("out") / "songs.parquet"
    predict_library(songs, out, shipped_model(), embeddings=True)
    return out


def test_embeddings_are_those_of_the_songs_beside_the_same_predictions(
    songs: Path, embedded: Path, finished: tuple[Path, library.Library]
) -> None:
    table, without = rows(embedded), rows(finished[0])
    ensemble = load_ensemble(shipped_model())
    for path in ("rock/rock.00000.wav", "jazz/jazz.00001.wav"):
        expected = predict_and_embed(ensemble, ensemble.compute(songs / path))[1]
        assert table[path]["embedding"] == pytest.approx(expected, abs=1e-5)
    own = ("embedding", "model")
    for path, row in table.items():
        assert (row["embedding"] is None) == (row["genre"] is None)
        plain = {name: value for name, value in without[path].items() if name not in own}
        assert {name: value for name, value in row.items() if name not in own} == plain
    type_of_column = pq.read_schema(embedded).field("embedding").type
    assert str(type_of_column) == "fixed_size_list<element: float>[522]"


def test_an_interrupted_run_with_embeddings_continues(
    songs: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_ROWS_PER_PART", 4)
    out = tmp_path / "songs.parquet"
    interrupt_after(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        predict_library(songs, out, shipped_model(), embeddings=True)
    with pytest.raises(RequestError, match="has embeddings, which a run without them would delete"):
        predict_library(songs, out, shipped_model())
    predicted = record_predicted(monkeypatch)
    predict_library(songs, out, shipped_model(), embeddings=True)
    assert 23 - 8 <= len(predicted) <= 23 - 8 + 2  # the two that cannot be read may be among them
    assert rows(out) == rows(embedded)
    predicted.clear()
    predict_library(songs, out, shipped_model(), embeddings=True)
    assert predicted == ["rock/broken.mp3", "rock/nowhere.flac"]


def test_a_table_with_embeddings_is_not_replaced_by_one_without(
    songs: Path, embedded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "songs.parquet"
    shutil.copy(embedded, out)
    before = out.read_bytes()
    refused = command("predict", songs, "--out", out, cwd=tmp_path, status=2)
    assert "add --embeddings, or give another --out" in refused.stderr
    assert out.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [out]


def test_a_table_without_embeddings_gets_them_for_all_songs(
    songs: Path,
    embedded: Path,
    finished: tuple[Path, library.Library],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "songs.parquet"
    shutil.copy(finished[0], out)
    assert predict_library(songs, out, shipped_model(), embeddings=True).known == 0
    assert "has no embeddings yet: its songs are read again" in capsys.readouterr().err
    assert rows(out) == rows(embedded)


def test_a_part_without_embeddings_is_not_mixed_with_others(
    songs: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_ROWS_PER_PART", 4)
    out = tmp_path / "songs.parquet"
    interrupt_after(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        predict_library(songs, out, shipped_model())
    predicted = record_predicted(monkeypatch)
    predict_library(songs, out, shipped_model(), embeddings=True)
    assert len(predicted) == 23
    assert rows(out) == rows(embedded)


def test_workers_know_several_features_and_a_family_of_ones_own(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = register_own_family(tmp_path, monkeypatch)
    config = DatasetConfig(features=("log_mel", "mfcc"), chunk_seconds=1.0)
    members = [
        Member("my_family", {"features": "log_mel"}, 0.5, temperature=0.5),
        Member("my_family", {}, 0.5, standardisation=1),
    ]
    model = write_ensemble(tmp_path / "ensemble", audio_features(config), members)
    out = tmp_path / "genres.parquet"
    result = predict_library(songs / "pop", out, model)
    assert (result.files, result.unread) == (2, [])
    ensemble = load_ensemble(model)
    for path, row in rows(out).items():
        for genre, share in ensemble.predict(songs / "pop" / path).items():
            assert row[f"prob_{genre}"] == pytest.approx(share, abs=1e-6)
    assert predict_library(songs / "pop", out, model).known == 2
    family.write_text(family.read_text() + "# changed\n")
    register_family(family)
    assert predict_library(songs / "pop", out, model).known == 0


@pytest.mark.parametrize("genre", ["NA", "nan", "null", "None", "true", "1", "a\nb", '"', "[red]"])
def test_a_genre_is_text_whatever_it_is_called(songs: Path, tmp_path: Path, genre: str) -> None:
    features = audio_features(DatasetConfig(chunk_seconds=1.0))
    members = [Member("discriminant", {}, 1.0)]
    model = write_ensemble(tmp_path / "model", features, members, genres=(genre,))
    out = tmp_path / "genres.csv"
    assert predict_library(songs / "pop", out, model).genres == {genre: 2}
    with out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["genre"] for row in table] == [genre] * 2
    assert [float(row[f"prob_{genre}"]) for row in table] == pytest.approx([1.0, 1.0])
    again = predict_library(songs / "pop", out, model)
    assert (again.known, again.genres) == (2, {genre: 2})


def test_the_command_reports_how_many_files_were_predicted(music: Path, tmp_path: Path) -> None:
    done = command("predict", "music", "--out", "g.csv", "--json", cwd=tmp_path, status=1)
    assert "predicting 23/23 files" in done.stderr
    assert "23 files (0 predicted before): " in done.stderr
    assert (
        "21 shorter than half a chunk; 2 could not be read; 2 left out; 3 files are no audio "
        "(1 .json, 1 .jpg, 1 .csv) (see the column reason of g.csv)"
    ) in " ".join(done.stderr.split())
    printed = json.loads(done.stdout)
    assert (printed["files"], printed["known"], printed["unread"]) == (23, 0, 2)
    assert sum(printed["genres"].values()) == 21


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["music"], "music has no file that may be a song"),
        (["music", "music", "--out", "g.csv"], "--out is for one folder, but 2 are given"),
        (["music", "--out", "g.txt"], "--out must end in .parquet or .csv, but it is g.txt"),
        (["music", "--out", "no/g.csv"], "must be a file in a folder that exists"),
        (["music/a.wav", "--playlists", "p"], "--playlists is for a whole library"),
        (["music/a.wav", "--embeddings"], "--embeddings is for a whole library"),
        (
            ["music", "--out", "g.csv", "--embeddings"],
            "--embeddings needs a table in Parquet, but --out is g.csv",
        ),
        (
            ["m\udcfasica", "--out", "g.csv"],
            "/m\\xfasica: rename it",
        ),
        (["empty", "--out", "g.csv"], "empty has no file that may be a song (it is empty)"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    options: list[str], text: str, tmp_path: Path
) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "empty").mkdir()
    done = command("predict", *options, cwd=tmp_path, status=2)
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("away", ["missing", "empty", "broken link"])
def test_rows_of_a_disk_that_is_not_mounted_are_kept(
    music: Path,
    tmp_path: Path,
    away: str,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, disk = tmp_path / f"genres.{ending}", tmp_path / "disk"
    (music / "jazz/loop").unlink()  # which would lead elsewhere
    shutil.move(music / "jazz", disk)
    if away == "broken link":
        (music / "jazz").symlink_to(disk)
    else:
        shutil.move(disk, music / "jazz")
    predict_library(music, out, shipped_model())
    first = out.read_bytes()
    count = first.count(b"jazz/") if ending == "csv" else 0

    shutil.move(disk if away == "broken link" else music / "jazz", tmp_path / "elsewhere")
    if away == "empty":
        (music / "jazz").mkdir()
    capsys.readouterr()
    without = predict_library(music, out, shipped_model(), playlists=tmp_path / "lists")
    printed = capsys.readouterr().err
    assert "of songs whose folder is missing or empty now" in printed
    if ending == "csv":
        assert out.read_bytes().count(b"jazz/") == count
    assert without.files < 23
    listed = "".join(path.read_text() for path in (tmp_path / "lists").iterdir())
    assert "jazz/jazz.00000.wav" not in listed

    if away == "empty":
        (music / "jazz").rmdir()
    shutil.move(tmp_path / "elsewhere", disk if away == "broken link" else music / "jazz")
    predicted = record_predicted(monkeypatch)
    predict_library(music, out, shipped_model())
    assert set(predicted) <= {"rock/broken.mp3", "rock/nowhere.flac"}
    if ending == "csv":
        assert out.read_bytes() == first


def test_rows_of_songs_that_were_deleted_or_moved_go(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "genres.parquet"
    predict_library(music, out, shipped_model())
    (music / "jazz/jazz.00000.wav").unlink()
    shutil.move(music / "pop", music / "more")
    predict_library(music, out, shipped_model())
    assert "missing or empty" not in capsys.readouterr().err
    paths = set(rows(out))
    assert "jazz/jazz.00000.wav" not in paths
    assert not [path for path in paths if path.startswith("pop/")]
    assert "more/pop.00000.wav" in paths


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_table_of_another_folder_is_not_replaced(
    music: Path, tmp_path: Path, ending: str
) -> None:
    out, other = tmp_path / f"genres.{ending}", tmp_path / "other"
    predict_library(music, out, shipped_model())
    before = out.read_bytes()
    shutil.copytree(music / "pop", other / "mine")
    with pytest.raises(RequestError, match=f"and none of its songs is in {other}: give another"):
        predict_library(other, out, shipped_model())
    assert out.read_bytes() == before
    moved = tmp_path / "moved"
    shutil.move(music, moved)
    assert predict_library(moved, out, shipped_model()).known == 21


def test_another_folder_with_songs_of_the_same_names_is_another_library(
    music: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "genres.parquet", tmp_path / "other"
    predict_library(music, out, shipped_model())
    shutil.copytree(music, other, symlinks=True, copy_function=shutil.copyfile)  # changed later
    with pytest.raises(RequestError, match=f"is the table of the songs in {music}, and none of"):
        predict_library(other, out, shipped_model())


def test_a_file_with_nothing_in_it_is_no_table_of_something_else(
    songs: Path, tmp_path: Path
) -> None:
    (tmp_path / "genres.parquet").touch()
    assert predict_library(songs, tmp_path / "genres.parquet", shipped_model()).files == 23


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("path", ["../secret.wav", "/etc/passwd", None])
def test_a_table_that_names_files_elsewhere_is_not_taken_for_an_earlier_one(
    tmp_path: Path, path: str | None, suffix: str
) -> None:
    schema, out = table_schema(("rock",)), tmp_path / f"genres.{suffix}"
    for name, is_refused in (("a.wav", False), (path, True)):
        table = pa.Table.from_pylist([{"path": name, "genre": "rock"}], schema=schema)
        write_table(out, table)
        if is_refused:
            with pytest.raises(RequestError, match="is not a table of genres that this program"):
                read_earlier(out, schema)
        else:
            assert len(read_earlier(out, schema)) == 1


def test_a_table_of_something_else_is_not_overwritten(songs: Path, tmp_path: Path) -> None:
    out = tmp_path / "accounts.csv"
    out.write_text("name,amount\na,1\n")
    with pytest.raises(RequestError, match="is not a table of genres that this program wrote"):
        predict_library(songs, out, shipped_model())
    assert out.read_text() == "name,amount\na,1\n"
