"""mgc_ray.compare on small results folders written here, and on one real search."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgc_ray import RequestError
from mgc_ray.compare import save_comparison
from mgc_ray.ensembling.comparison import compare, read_outcomes

GENRES = ("blues", "disco", "rock")
ARTISTS = "abcdefgh"  # two tracks each, all of one genre


def command(
    *args: object, cwd: Path, status: int = 0, columns: int = 80
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mgc_ray.compare ARGS` and see that it ends with `status`."""
    done = subprocess.run(
        [sys.executable, "-m", "mgc_ray.compare", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def write_search(
    folder: Path,
    models: dict[str, str],
    seed: int = 0,
    part: str = "test",
    artists: str = ARTISTS,
    genres: Sequence[str] = GENRES,
    fold: str | None = None,
    asked: dict[str, Any] | None = None,
    **ensemble: Any,
) -> Path:
    """A finished search's folder as mgc_ray.search leaves it, but for the weights.

    `models`: of each model which of the tracks are right, `1101...`, two an artist.
    """
    families = [name for name in models if name != "ensemble"]
    provenance = {
        "genres": list(genres),
        "protocol": "cross-validation" if fold else "grouped",
        "leaky": False,
        "split_seed": 0,
        "source": "/somewhere/music.csv",
        "selected_on": "validation",
        "trained_on": [],
    } | ensemble
    rows, figures = [], {}
    for name, right in models.items():
        tracks = [(f"{artist}{i}", artist) for artist in artists for i in (0, 1)]
        assert len(tracks) == len(right)
        for (track, artist), digit in zip(tracks, right, strict=True):
            genre = ARTISTS.index(artist) % len(genres)
            answer = genre if digit == "1" else (genre + 1) % len(genres)
            probs = [0.8 if g == answer else 0.1 for g in range(len(genres))]
            rows.append([name, part, track, artist, genres[genre], *probs])
        # of each track ten chunks; those of the first model are right where the track is
        told = {
            "tracks": len(right),
            "chunks": 10 * len(right),
            "chunk_accuracy": right.count("1") / len(right) / 2,
            "genres": list(genres),
        }
        parts = {"validation": told, "test": None} | {part: told}
        figures[name] = {"parameters": 1_234_567, "seconds": 61.4, **parts}
    settings = {"trials": 24, "max_epochs": 30, "seed": seed, "concurrent": seed + 1}
    request: dict[str, Any] = {
        "families": families,
        "name": folder.name,
        "tracks": "music.csv",
        "split_seed": 0,
        "warm_start": [],
        "settings": settings,
    } | (asked or {})
    if fold:
        request["fold"] = fold
    (folder / "ensemble").mkdir(parents=True)
    (folder / "search.json").write_text(
        json.dumps({"finished": True, "request": request, "dataset": "datasets/music"})
    )
    (folder / "ensemble" / "ensemble.json").write_text(json.dumps(provenance | {"models": figures}))
    with (folder / "ensemble" / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "part", "track_id", "group", "genre", *genres])
        writer.writerows(rows)
    return folder


def right(share: int, seed: int = 0, tracks: int = 16) -> str:
    """`share` of the tracks right, each seed other ones."""
    return "".join("1" if (i * 5 + seed * 3) % tracks < share else "0" for i in range(tracks))


def compared(folders: Sequence[Path]) -> dict[str, Any]:
    return compare(*read_outcomes(folders))


def five_seeds(folder: Path) -> list[Path]:
    return [
        write_search(
            folder / f"s{seed}",
            {"ensemble": right(12 + seed % 2, seed), "gru": right(9, seed), "cnn": right(8, seed)},
            seed,
        )
        for seed in range(5)
    ]


def test_rows_are_models_over_seeds_by_accuracy(tmp_path: Path) -> None:
    content = compared(five_seeds(tmp_path))
    rows = content["rows"]
    assert [(row["row"], row["model"]) for row in rows] == [
        (1, "ensemble"),
        (2, "gru"),
        (3, "cnn"),
    ]
    first = rows[0]
    assert first["seeds"] == 5
    assert first["track_accuracy"] == pytest.approx((3 * 12 + 2 * 13) / 5 / 16)
    # 12, 13, 12, 13, 12 of 16: mean 12.4, squares .16 * 3 + .36 * 2 = 1.2, over 4
    assert first["deviation"] == pytest.approx((1.2 / 4) ** 0.5 / 16)
    assert first["chunk_accuracy"] == pytest.approx(first["track_accuracy"] / 2)
    assert first["interval_95"]["method"] == "bootstrap over 8 groups and 5 runs"
    assert first["interval_95"]["low"] < first["track_accuracy"] < first["interval_95"]["high"]
    assert (first["parameters"], first["seconds"]) == (1_234_567, 61.4)
    assert (first["tracks"], first["groups"]) == (16, 8)
    assert first["notes"] == []
    assert [one["seed"] for one in first["runs"]] == [0, 1, 2, 3, 4]
    assert [(one["row"], one["less"]) for one in content["differences"]] == [(1, 2), (1, 3), (2, 3)]
    assert content["differences"][0]["value"] == pytest.approx(3.4 / 16)


def test_fewer_than_five_seeds_are_told(tmp_path: Path) -> None:
    searches = [write_search(tmp_path / f"s{s}", {"gru": right(8, s)}, s) for s in range(4)]
    assert compared(searches)["rows"][0]["notes"] == [
        "4 seeds, fewer than 5: another seed may give another figure"
    ]
    (row,) = compared(searches[:1])["rows"]
    assert row["notes"] == ["1 seed, fewer than 5: another seed may give another figure"]
    assert row["deviation"] is None


def test_validation_figures_are_marked_as_chosen_on(tmp_path: Path) -> None:
    searches = [
        write_search(tmp_path / "a", {"gru": right(9)}, part="validation"),
        write_search(
            tmp_path / "b", {"gru": right(9)}, part="out_of_fold", selected_on="out_of_fold"
        ),
        write_search(tmp_path / "c", {"gru": right(4)}),
    ]
    tested, *others = compared(searches)["rows"]
    assert (tested["judged_on"], tested["chosen_on"], tested["refitted"]) == ("test", False, False)
    assert [(one["judged_on"], one["refitted"]) for one in others] == [
        ("validation", False),
        ("out_of_fold", True),
    ]
    for one in others:
        assert one["chosen_on"]
        assert "chosen on the tracks that it is judged on, so too high" in one["notes"]
    said = command(*searches, cwd=tmp_path).stderr
    assert re.search(r"gru +1† validation! ", said)
    assert "! chosen on the tracks that it is judged on, so too high" in said
    assert "2 and 3 are not over the same splits and tracks: no difference is given" in said


def test_a_family_without_a_row_is_told(tmp_path: Path) -> None:
    searches = [
        write_search(
            tmp_path / f"s{seed}",
            {"ensemble": right(12), "gru": right(9), "cnn": right(8)} | more,
            seed,
            asked={"families": ["gru", "cnn", "lstm"]},
        )
        for seed, more in ((0, {}), (1, {"lstm": right(7)}))
    ]
    said = (
        "lstm has no figure of s0: none of its trials was among the best that an ensemble is "
        "chosen from (--top-k)"
    )
    assert compared(searches)["notes"] == [said]
    assert said in command(*searches, cwd=tmp_path, columns=200).stderr
    assert compared(searches[1:])["notes"] == []


def test_an_ensemble_of_one_family_alone_is_told(tmp_path: Path) -> None:
    models = {"ensemble": right(9), "gru": right(9), "cnn": right(8)}
    searches = [write_search(tmp_path / "s0", models), write_search(tmp_path / "s1", models, 1)]
    (said,) = compared(searches)["notes"]
    assert said == "1 gives the answers of 2 on all tracks: what the ensemble chose is gru alone"
    other = write_search(tmp_path / "s2", models | {"ensemble": right(9, seed=1)}, 2)
    assert compared([*searches, other])["notes"] == []  # of that seed it is another model


def test_folds_of_a_seed_are_one_figure_and_missing_ones_are_told(tmp_path: Path) -> None:
    parts = {"1/4": "ab", "2/4": "cd", "3/4": "ef", "4/4": "gh"}
    searches = []
    for seed, done in ((0, 4), (1, 3)):
        for number, (fold, artists) in enumerate(list(parts.items())[:done]):
            searches.append(
                write_search(
                    tmp_path / f"s{seed}f{number + 1}",
                    {"gru": ("1111", "1100", "0000", "1000")[number]},
                    seed,
                    artists=artists,
                    fold=fold,
                )
            )
    (row,) = compared(searches)["rows"]
    assert row["folds"] == 4
    assert [one["folds"] for one in row["runs"]] == [[1, 2, 3, 4], [1, 2, 3]]
    assert [one["track_accuracy"] for one in row["runs"]] == [7 / 16, 6 / 12]
    assert row["seeds"] == 2
    assert "seed 1: 3 of 4 folds" in row["notes"]
    said = command(*searches, cwd=tmp_path, columns=120).stderr
    assert re.search(r"gru; 3 of 4 folds \(seed 1\) +2† test +46\.9 ± 4\.4 ", said)
    assert "gru; 4 folds" in command(*searches[:4], cwd=tmp_path).stderr


@pytest.mark.parametrize("place", ["request", "dataset of the request", "search"])
def test_a_fold_is_found_wherever_it_stands(place: str, tmp_path: Path) -> None:
    search = write_search(tmp_path / "s", {"gru": right(8)}, split_seed=3)
    content = json.loads((search / "search.json").read_text())
    request = content["request"]
    told = {"request": request, "search": content}.get(place)
    if told is None:
        told = request.setdefault("dataset", {})
    told["fold"] = "2/5"
    (search / "search.json").write_text(json.dumps(content))
    (row,) = compared([search])["rows"]
    assert (row["folds"], row["runs"][0]["folds"], row["runs"][0]["split_seed"]) == (5, [2], 3)


def test_what_weights_were_trained_on_beside_the_dataset_makes_a_row(tmp_path: Path) -> None:
    own = {"source": "/somewhere/music.csv", "protocol": "grouped", "task": "genres"}
    tags = {"source": "/elsewhere/other/tracks.csv", "protocol": "given", "task": "tags"}
    models = {"ensemble": right(12), "gru": right(9), "transfer": right(10)}
    search = write_search(tmp_path / "s", models, trained_on=[tags, own])
    plain = write_search(tmp_path / "t", models, trained_on=[own])
    checkpoint = search / "trials/gru-0003/checkpoint"  # a family whose trials began anew
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text(json.dumps({"trained_on": [own]}))
    plain_gru = write_search(tmp_path / "u", {"gru": right(9)}, trained_on=[own])
    rows = compared([search, plain_gru])["rows"]
    assert {(row["model"], *row["trained_on"]) for row in rows} == {
        ("ensemble", "other (tags)"),
        ("transfer", "other (tags)"),
        ("gru",),
    }
    assert len(compared([search])["rows"]) == 3
    trained = [row["trained_on"] for row in compared([plain])["rows"]]
    assert trained == [[], [], []]
    said = " ".join(command(search, cwd=tmp_path).stderr.split())
    assert "trained also on other (tags)" in said


def test_searches_that_were_asked_for_other_things_are_other_rows(tmp_path: Path) -> None:
    more = {"settings": {"trials": 48, "max_epochs": 30, "seed": 0}}
    chroma = {"dataset": {"features": ["log_mel", "chroma"], "synthetic": 0}}
    searches = [
        write_search(tmp_path / "a", {"gru": right(8)}),
        write_search(tmp_path / "b", {"gru": right(9)}, asked=more),
        write_search(tmp_path / "c", {"gru": right(10)}, asked=chroma),
        write_search(tmp_path / "d", {"cnn": right(7)}),
        write_search(tmp_path / "e", {"gru": right(6), "cnn": right(6)}),
        write_search(tmp_path / "f", {"cnn": right(5)}, source="/somewhere/music [live].csv"),
    ]
    every = {"families": "gru", "features": "not asked for", "trials": "24"}
    of_cnn = {"families": "cnn", "tracks": "somewhere/music"}
    assert [(row["model"], row["settings"]) for row in compared(searches)["rows"]] == [
        ("gru", every | {"features": "log_mel, chroma"}),
        ("gru", every | {"trials": "48"}),
        ("gru", every),
        ("cnn", of_cnn),
        ("gru", every | {"families": "cnn, gru"}),
        ("cnn", of_cnn | {"families": "cnn, gru"}),
        ("cnn", of_cnn | {"tracks": "somewhere/music [live]"}),
    ]
    said = command(*searches, cwd=tmp_path, columns=160).stderr
    assert "tracks somewhere/music [live]" in said


def test_the_ensemble_of_one_family_is_that_familys_row(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"ensemble": right(8), "gru": right(8)})
    assert [row["model"] for row in compared([search])["rows"]] == ["gru"]


def test_a_leaky_protocol_is_marked_by_chunk_first_and_below_the_others(tmp_path: Path) -> None:
    leaky = write_search(
        tmp_path / "leaky",
        {"gru": right(15)},
        part="validation",
        protocol="random-chunks",
        leaky=True,
    )
    fair = write_search(tmp_path / "fair", {"gru": right(8)}, protocol="stratified")
    content = compared([leaky, fair])
    assert [row["leaky"] for row in content["rows"]] == [False, True]
    assert "LEAKY: chunks of one song on both sides" in content["rows"][1]["notes"]
    assert content["differences"] == []
    said = command(leaky, cwd=tmp_path).stderr
    assert "Protocol random-chunks, LEAKY: chunks of one song on both sides" in said
    headings = said.splitlines()[1:3]
    assert headings[0].split() == ["judged", "chunk", "track", "train"]
    assert re.search(r"46\.9 +93\.8 +\d", said)  # chunks, then tracks and their interval


def test_the_published_baseline_stands_beside_and_is_marked(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    said = command(search, "--out", "out", cwd=tmp_path).stderr
    for text in (said, (tmp_path / "out/comparison.md").read_text()):
        assert "Published baseline on GTZAN, LEAKY, not comparable: chunks of one song on" in text
        for figure in ("79.88", "87.63", "91.29"):
            assert figure in text


def test_all_is_saved_with_all_pairs_and_the_methods(tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    done = command(*searches, "--out", tmp_path / "deep/out", "--json", cwd=tmp_path)
    out = tmp_path / "deep/out"
    assert {path.name for path in out.iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "comparison.json",
        "comparison.parquet",
    }
    content = json.loads((out / "comparison.json").read_text())
    assert json.loads(done.stdout) == content == json.loads(json.dumps(compared(searches)))
    with (out / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["model"] for row in table] == ["ensemble", "gru", "cnn"]
    assert float(table[1]["track_accuracy"]) == pytest.approx(9 / 16)
    assert table[0]["searches"].split("; ") == [str(search) for search in searches]
    markdown = (out / "comparison.md").read_text()
    assert "| 1 | ensemble chosen from cnn, gru | 5 | test | 77.5 ± 3.4 | " in markdown
    assert "- 1 less 3: +27.5 points of tracks (95 % " in markdown
    assert "1 less 3" not in done.stderr  # only rows that follow each other
    assert "2 less 3: +6.2 points of tracks (95 % " in done.stderr
    for method in content["methods"]:
        assert method in markdown
    genres, few = read_outcomes(searches[:2])
    save_comparison(compare(genres, few), few, out)
    note = "- rows 1, 2, 3: 2 seeds, fewer than 5: another seed may give another figure\n"
    assert note in (out / "comparison.md").read_text()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_fit(columns: int, tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    for seed in range(2):
        leaky = {"protocol": "random-chunks", "leaky": True, "part": "validation"}
        models = {"ensemble": right(13 + seed), "gru": right(13), "cnn": right(12)}
        searches.append(write_search(tmp_path / f"leaky{seed}", models, seed, **leaky))
    said = command(*searches, cwd=tmp_path, columns=columns).stderr
    tables = said.split("accuracies in %")[0]
    assert all(len(line) <= columns for line in tables.splitlines())
    assert "…" not in tables
    assert re.search(r"^1 ensemble .* 5 test +77\.5 ± 3\.4 ", tables, re.MULTILINE)
    assert re.search(
        r"^4 ensemble .* 2† validation! 42\.2 ± 2\.2 84\.4 ± 4\.4 ", tables, re.MULTILINE
    )


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    done = command("nowhere", cwd=tmp_path, status=2)
    assert done.stderr == (
        "mgc_ray.compare: error: nowhere is no search: search.json is missing; name folders that "
        "mgc_ray.search wrote (results/NAME), or mgc_ray.compare --out\n"
    )


def test_an_unfinished_search_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gru-001").mkdir()
    (tmp_path / "gru-001/search.json").write_text('{"finished": false}')
    with pytest.raises(RequestError, match="only finished searches can be compared, but .*gru-001"):
        compared([tmp_path / "gru-001"])
    done = command("gru-001", cwd=tmp_path, status=2)
    assert (
        "has not come to its end: go on with it by python -m mgc_ray.search --resume gru-001"
        in (done.stderr)
    )


def test_searches_over_other_genres_are_refused(tmp_path: Path) -> None:
    searches = [
        write_search(tmp_path / "a", {"gru": right(8)}),
        write_search(tmp_path / "b", {"gru": right(8)}, genres=("blues", "disco")),
    ]
    with pytest.raises(
        RequestError,
        match="must be over the same genres, but .*a has blues, disco, rock and .*b has "
        "blues, disco: compare them in two calls",
    ):
        compared(searches)


def test_a_search_named_twice_is_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    with pytest.raises(RequestError, match="but .*a is there twice .*: leave it out"):
        compared([search, search])
    same = write_search(tmp_path / "b", {"gru": right(8)})
    with pytest.raises(RequestError, match="are both gru of seed 0, split seed 0: leave one"):
        compared([search, same])


def test_a_search_of_another_version_is_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    ensemble = search / "ensemble/ensemble.json"
    content = json.loads(ensemble.read_text())
    del content["models"]
    ensemble.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=r"another version of this program \(KeyError\('models'"):
        compared([search])
    ensemble.unlink()
    with pytest.raises(RequestError, match="is no ensemble with figures: ensemble.json is missing"):
        compared([search])


def test_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    predictions = search / "ensemble/predictions.csv"
    text = predictions.read_text()
    predictions.write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(RequestError, match="must have the 16 tracks that the figures of gru are"):
        compared([search])
    predictions.write_text(text.replace("rock", "pop"))
    with pytest.raises(RequestError, match="must have the columns model, part, track_id, group, "):
        compared([search])
    predictions.write_text(text + "gru\n")
    with pytest.raises(RequestError, match="another version of this program .IndexError"):
        compared([search])
    predictions.unlink()
    with pytest.raises(RequestError, match="cannot be read .No such file or directory.: search"):
        compared([search])


def test_a_place_to_save_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    (tmp_path / "file").touch()
    done = command(search, "--out", "file", cwd=tmp_path, status=1)
    assert done.stderr.splitlines()[-1].startswith("mgc_ray.compare: error: file")


def test_saving_again_replaces_what_was_there(tmp_path: Path) -> None:
    genres, outcomes = read_outcomes([write_search(tmp_path / "a", {"gru": right(8)})])
    for _ in range(2):
        save_comparison(compare(genres, outcomes), outcomes, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_saved_comparison_is_made_again_without_the_searches(tmp_path: Path) -> None:
    folds = [
        write_search(
            tmp_path / f"f{fold}",
            {"ensemble": right(3, fold, 4), "gru": right(2, fold, 4)},
            artists=artists,
            fold=f"{fold}/2",
            asked={"more_tracks": "other/music.csv"},
            trained_on=[{"source": "/x/more.csv", "protocol": "given", "task": "genres"}],
            selected_on="out_of_fold",
        )
        for fold, artists in ((1, "ab"), (2, "cd"))
    ]
    searches = [*five_seeds(tmp_path), *folds]
    first = command(*searches, "--out", "saved", "--json", cwd=tmp_path)
    for search in searches:
        shutil.rmtree(search)
    again = command("saved", "--out", "saved", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    told = [(row["folds"], row["trained_on"]) for row in json.loads(first.stdout)["rows"]]
    assert (2, ["x/more (genres)"]) in told
    assert again.stderr == first.stderr


def test_a_saved_comparison_goes_on_with_more_seeds(tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    genres, outcomes = read_outcomes(searches[:2])
    save_comparison(compare(genres, outcomes), outcomes, tmp_path / "saved")
    assert compared([tmp_path / "saved", *searches[2:]]) == compared(searches)
    with pytest.raises(RequestError, match="but .*s1 is there twice"):
        compared([tmp_path / "saved", *searches[1:]])


def test_answers_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    saved = tmp_path / "saved" / "comparison.parquet"
    saved.parent.mkdir()
    saved.write_bytes(b"PAR1 and no more")
    with pytest.raises(RequestError, match="parquet cannot be read .*compare the searches again"):
        compared([saved.parent])
    pq.write_table(pa.table({"track_id": ["a"]}), saved)
    with pytest.raises(RequestError, match="must have the columns search, .* but it has track_id"):
        compared([saved.parent])


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("predicted", None, "model gru of .*s0, track a0: no predicted"),
        ("families", None, "no families"),
        ("genre", "polka", "track a0: genre polka is none of blues, disco, rock"),
        ("track_id", "a1", "track a1: there twice"),
        ("seed", 7, "track a1: seed differs from that of a0"),
        ("chunks", 0, "chunks"),
        ("chunk_accuracy", float("nan"), "chunk_accuracy"),
        (None, None, "it has no answers"),
    ],
)
def test_answers_that_are_not_as_written_are_refused(
    column: str | None, value: object, told: str, tmp_path: Path
) -> None:
    genres, outcomes = read_outcomes([write_search(tmp_path / "s0", {"gru": right(3)})])
    saved = tmp_path / "saved"
    save_comparison(compare(genres, outcomes), outcomes, saved)
    table = pq.read_table(saved / "comparison.parquet")
    rows = table.to_pylist() if column else []
    of_model = ("chunks", "chunk_accuracy")
    for row in rows if column in of_model else rows[:1]:
        row[column] = value
    damaged = pa.Table.from_pylist(rows, schema=table.schema)
    pq.write_table(damaged, saved / "comparison.parquet")
    with pytest.raises(RequestError, match=f"not as it was written .*{told}.*compare .* again"):
        compared([saved])


def test_comparing_loads_neither_ray_nor_torch() -> None:
    code = "import sys, mgc_ray.compare; print({'ray', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_real_search_has_the_figures_that_it_told(tmp_path: Path) -> None:
    searched = subprocess.run(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "gru", "cnn"),
            *("--smoke", "--name", "x"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert searched.returncode == 0, searched.stderr
    content = json.loads(command("results/x", "--json", cwd=tmp_path).stdout)
    told = json.loads((tmp_path / "results/x/ensemble/ensemble.json").read_text())
    rows = {row["model"]: row for row in content["rows"]}
    assert rows.keys() == {"ensemble", "gru", "cnn"}
    for name, row in rows.items():
        figures = told["models"][name]["test"]
        for figure in ("track_accuracy", "chunk_accuracy", "interval_95", "tracks"):
            assert row[figure] == figures[figure], figure
        assert row["macro_f1"] == pytest.approx(figures["macro_f1"])
        assert row["parameters"] == told["models"][name]["parameters"]
        assert (row["judged_on"], row["seeds"], row["trained_on"]) == ("test", 1, [])
    assert len(content["differences"]) == 3
