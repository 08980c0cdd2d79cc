"""Genres whose names mean something to pandas, JSON, file systems or terminals stay as they are."""

import csv
import json
import math
from pathlib import Path

import pandas as pd
import pytest

import mgc_ray
from mgc_ray.corpus.composer import GENRES
from mgc_ray.corpus.files import write_track
from mgc_ray.data.names import from_cell
from tests.commands import command

ODD = [
    *("nan", "NA", "None", "null", "true", "1", "日本🎸", "مرحبا", "\x1b[31mred\nline", "[red]x"),
    *("R&B <b>", "$a$ %s {y}", "=1+1", "x" * 200, "a'b\"c,d;e", "..."),
]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_whole_search_with_odd_names_of_genres(tmp_path: Path) -> None:
    for number, genre in enumerate(ODD):
        (tmp_path / "music" / genre).mkdir(parents=True)
        for i in range(4):
            path = tmp_path / "music" / genre / f"{number}-{i}.wav"
            write_track(path, GENRES[number % 10], i, number, 3.0)
    options = ("--family", "discriminant", "--smoke", "--tracks", "music", "--name", "one")
    done = command("search", *options, "--json", cwd=tmp_path)
    assert "\x1b" not in done.stderr
    result = mgc_ray.load_search(tmp_path / "results/one")
    assert result.test
    assert list(result.test.genres) == sorted(ODD)
    assert json.loads(done.stdout)["ensemble"]["genres"] == sorted(ODD)
    predictions = pd.read_parquet(result.folder / "predictions.parquet")
    assert set(predictions["genre"]) == set(ODD)
    assert set(predictions["part"]) == {"valid", "test"}
    page = (result.folder / "report.html").read_text("utf-8")
    assert "R&amp;B &lt;b&gt;" in page
    assert "<b>" not in page

    model = ("--model", "results/one/ensemble")
    evaluated = json.loads(
        command("evaluate", *model, "--tracks", "music", "--json", cwd=tmp_path).stdout
    )
    assert evaluated["metrics"]["genres"] == sorted(ODD)
    assert evaluated["metrics"]["tracks"] == 4 * len(ODD)
    compared = command("compare", "results/one", "--out", "compared", "--json", cwd=tmp_path)
    assert json.loads(compared.stdout)["genres"] == sorted(ODD)
    again = command("compare", "compared", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["genres"] == sorted(ODD)

    library = ("predict", "music", *model, "--out", "genres.csv", "--playlists", "lists", "--json")
    first = json.loads(command(*library, cwd=tmp_path).stdout)
    second = json.loads(command(*library, cwd=tmp_path).stdout)
    assert (first["known"], second["known"]) == (0, 4 * len(ODD))
    assert first["genres"] == second["genres"]
    with open(tmp_path / "genres.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    genres = [from_cell(row["genre"]) for row in rows]  # =1+1 is no formula there
    assert set(genres) <= set(ODD)
    assert all(
        math.isclose(float(row[f"prob_{genre}"]), float(row["probability"]), rel_tol=1e-5)
        for genre, row in zip(genres, rows, strict=True)
    )
    assert len(list((tmp_path / "lists").iterdir())) >= len(set(first["genres"])) - 1
