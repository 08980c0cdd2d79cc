"""A comparison of finished searches: its rows, its differences, its tables and files."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mgc_ray
from mgc_ray import RequestError
from mgc_ray.data.split.gtzan import fault_filtered
from mgc_ray.evaluation.compare import ComparedModel, Comparison, compare_runs, compare_searches
from mgc_ray.evaluation.runs import read_runs
from mgc_ray.pipeline.comparison import save_comparison
from mgc_ray.results import OUT_OF_FOLD, VALID, EnsembleInfo, TrainedOn, load_search
from mgc_ray.settings import as_json
from tests.commands import command
from tests.evaluation.made_runs import (
    OWN,
    evaluated,
    five_seeds,
    model_run,
    right,
    write_search,
)


@pytest.fixture
def columns() -> int:
    return 100


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """The width of the terminal that tables are printed for."""
    monkeypatch.setattr("mgc_ray.terminal.command.console._width", columns)


def compared(folders: Sequence[Path]) -> Comparison:
    return compare_searches(folders)[0]


def rows_of(folders: Sequence[Path]) -> tuple[ComparedModel, ...]:
    return compared(folders).rows


# --- rows ---


def test_rows_are_models_over_seeds_by_accuracy(tmp_path: Path) -> None:
    comparison = compared(five_seeds(tmp_path))
    rows = comparison.rows
    assert [(row.row, row.model) for row in rows] == [(1, "ensemble"), (2, "gru"), (3, "cnn")]
    first = rows[0]
    assert first.seeds == 5
    assert first.track_accuracy == pytest.approx((3 * 12 + 2 * 13) / 5 / 16)
    # 12, 13, 12, 13, 12 of 16: mean 12.4, squares .16 * 3 + .36 * 2 = 1.2, over 4
    assert first.deviation == pytest.approx((1.2 / 4) ** 0.5 / 16)
    assert first.chunk_accuracy == pytest.approx(first.track_accuracy / 2)
    assert first.interval_95.method == "bootstrap over 8 groups and 5 runs"
    assert first.interval_95.low < first.track_accuracy < first.interval_95.high
    assert (first.parameters, first.seconds) == (1_234_567, 61.4)
    assert (first.tracks, first.groups) == (16, 8)
    assert first.notes == ()
    assert [one.seed for one in first.runs] == [0, 1, 2, 3, 4]
    assert [(one.row, one.minus) for one in comparison.differences] == [(1, 2), (1, 3), (2, 3)]
    assert comparison.differences[0].value == pytest.approx(3.4 / 16)


def test_fewer_than_five_seeds_are_noted(tmp_path: Path) -> None:
    searches = [write_search(tmp_path / f"s{s}", {"gru": right(8, s)}, s) for s in range(4)]
    assert rows_of(searches)[0].notes == (
        "4 seeds, fewer than 5: another seed may give another figure",
    )
    (row,) = rows_of(searches[:1])
    assert row.notes == ("1 seed, fewer than 5: another seed may give another figure",)
    assert row.deviation is None


def test_metrics_of_validation_are_marked_as_chosen_on(tmp_path: Path) -> None:
    searches = [
        write_search(tmp_path / "a", {"gru": right(9)}, part=VALID),
        write_search(tmp_path / "b", {"gru": right(9)}, part=OUT_OF_FOLD),
        write_search(tmp_path / "c", {"gru": right(4)}),
    ]
    tested, *others = rows_of(searches)
    assert (tested.evaluated_on, tested.chosen_on, tested.refitted) == ("test", False, False)
    assert [(one.evaluated_on, one.refitted) for one in others] == [
        ("valid", False),
        ("out_of_fold", True),
    ]
    for one in others:
        assert one.chosen_on
        assert "chosen on the tracks that it is evaluated on, so too high" in one.notes
    printed = command("compare", *searches, cwd=tmp_path).stderr
    assert re.search(r"gru +1† valid! ", printed)
    assert "! chosen on the tracks that it is evaluated on, so too high" in printed
    assert "2 and 3 are not over the same splits and tracks: no difference is given" in printed


def test_a_family_without_a_row_is_noted(tmp_path: Path) -> None:
    models = {"ensemble": right(12), "gru": right(9), "cnn": right(8)}
    searches = [
        write_search(
            tmp_path / f"s{seed}", models | more, seed, config={"family": ["gru", "cnn", "lstm"]}
        )
        for seed, more in ((0, {}), (1, {"lstm": right(7)}))
    ]
    note = (
        "lstm has no figure of s0: none of its trials was among the best that an ensemble is "
        "selected from (--top-k)"
    )
    assert compared(searches).notes == (note,)
    printed = command("compare", *searches, cwd=tmp_path).stderr
    assert note in " ".join(printed.split())
    assert compared(searches[1:]).notes == ()


def test_an_ensemble_of_one_family_alone_is_noted(tmp_path: Path) -> None:
    models = {"ensemble": right(9), "gru": right(9), "cnn": right(8)}
    searches = [write_search(tmp_path / "s0", models), write_search(tmp_path / "s1", models, 1)]
    assert compared(searches).notes == (
        "1 predicts the same as 2 for all tracks: the ensemble selected gru alone",
    )
    other = write_search(tmp_path / "s2", models | {"ensemble": right(9, seed=1)}, 2)
    assert compared([*searches, other]).notes == ()  # of that seed it is another model


def test_folds_of_a_seed_are_one_run_and_missing_ones_are_noted(tmp_path: Path) -> None:
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
    (row,) = rows_of(searches)
    assert row.folds == 4
    assert [one.folds for one in row.runs] == [(1, 2, 3, 4), (1, 2, 3)]
    assert [one.track_accuracy for one in row.runs] == [7 / 16, 6 / 12]
    assert row.seeds == 2
    assert "seed 1: 3 of 4 folds" in row.notes
    printed = command("compare", *searches, cwd=tmp_path).stderr
    assert re.search(r"gru; 3 of 4 folds \(seed 1\) +2† test +46\.9 ± 4\.4 ", printed)
    assert "gru; 4 folds" in command("compare", *searches[:4], cwd=tmp_path).stderr


def test_settings_that_are_not_at_their_default_make_other_rows(tmp_path: Path) -> None:
    dataset = {"tracks": "music.csv", "features": ["log_mel", "chroma"]}
    searches = [
        write_search(tmp_path / "a", {"gru": right(8)}),
        write_search(tmp_path / "b", {"gru": right(9)}, config={"tuning": {"trials": 48}}),
        write_search(
            tmp_path / "c",
            {"gru": right(10)},
            config={"dataset": dataset, "tuning": {"trials": 24}},
        ),
        write_search(tmp_path / "d", {"cnn": right(7)}),
        write_search(tmp_path / "e", {"gru": right(6), "cnn": right(6)}),
        write_search(tmp_path / "f", {"cnn": right(5)}, source="/somewhere/music [live].csv"),
    ]
    every = {"dataset.features": "default", "families": "gru", "tuning.trials": "24"}
    of_cnn = {"families": "cnn", "tracks": "somewhere/music"}
    assert [(row.model, row.settings) for row in rows_of(searches)] == [
        ("gru", every | {"dataset.features": "log_mel, chroma"}),
        ("gru", every | {"tuning.trials": "48"}),
        ("gru", every),
        ("cnn", of_cnn),
        ("gru", every | {"families": "cnn, gru"}),
        ("cnn", of_cnn | {"families": "cnn, gru"}),
        ("cnn", of_cnn | {"tracks": "somewhere/music [live]"}),
    ]
    printed = command("compare", *searches, cwd=tmp_path).stderr
    words = " ".join(printed.split())
    assert "[live]" in words  # and not taken for markup
    assert "dataset.features: default" in words


def test_what_weights_were_trained_on_is_shown(tmp_path: Path) -> None:
    tags = TrainedOn("/elsewhere/other/tracks.csv", "given", "tags")
    models = {"ensemble": right(12), "gru": right(9), "transfer": right(10)}
    search = write_search(tmp_path / "s", models, trained_on=(tags, OWN))
    found = {(row.model, row.trained_on) for row in rows_of([search])}
    assert found == {
        ("ensemble", ("other (tags)",)),
        ("transfer", ("other (tags)",)),
        ("gru", ()),
    }
    printed = " ".join(command("compare", search, cwd=tmp_path).stderr.split())
    assert "also trained on other (tags)" in printed


def test_a_leaky_protocol_is_marked_with_chunks_first_and_below_the_others(tmp_path: Path) -> None:
    leaky = write_search(
        tmp_path / "leaky",
        {"gru": right(15)},
        part=VALID,
        protocol="random-chunks",
        leaky=True,
    )
    fair = write_search(tmp_path / "fair", {"gru": right(8)})
    comparison = compared([leaky, fair])
    assert [row.leaky for row in comparison.rows] == [False, True]
    note = "LEAKY: chunks of one song on both sides of the split"
    assert note in comparison.rows[1].notes
    assert comparison.differences == ()
    printed = command("compare", leaky, cwd=tmp_path).stderr
    assert f"Protocol random-chunks, {note}" in printed
    headings = printed.splitlines()[1:3]
    assert headings[0].split() == ["evaluated", "chunk", "track", "train"]
    assert headings[1].split()[:3] == ["model", "seeds", "on"]
    assert re.search(r"46\.9 +93\.8 +\d", printed)  # chunks, then tracks and their interval


def test_the_published_baseline_is_shown_where_the_tracks_are_gtzans(tmp_path: Path) -> None:
    ids = sorted(fault_filtered())[:6]
    tracks = evaluated("11", "01", "10")
    artists = np.array([fault_filtered()[track].artist for track in ids])

    def baseline(**changed: np.ndarray) -> list[tuple[str, str]]:
        return compare_runs(["a", "b", "c"], [model_run(replace(tracks, **changed))]).baseline()

    published = [("CNN", "79.88"), ("CNN+LSTM", "87.63"), ("CNN+GRU", "91.29")]
    assert baseline(track_id=np.array(ids), group=artists) == published
    assert baseline(track_id=np.array(ids), group=np.array(ids)) == published  # artists not known
    assert baseline(track_id=np.array(ids)) == []  # the built-in corpus has such ids
    assert baseline() == []
    search = write_search(tmp_path / "a", {"gru": right(8)})
    printed = command("compare", search, "--out", "out", cwd=tmp_path).stderr
    for text in (printed, (tmp_path / "out/comparison.md").read_text()):
        assert "Published baseline" not in text


# --- files and tables ---


def test_all_is_saved_with_all_pairs_and_the_methods(tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    out = tmp_path / "deep/out"
    done = command("compare", *searches, "--out", out, "--json", cwd=tmp_path)
    assert {path.name for path in out.iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "comparison.json",
        "comparison.parquet",
    }
    content = json.loads((out / "comparison.json").read_text())
    assert json.loads(done.stdout) == content
    assert content == json.loads(json.dumps(as_json(compared(searches))))
    with (out / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["model"] for row in table] == ["ensemble", "gru", "cnn"]
    assert float(table[1]["track_accuracy"]) == pytest.approx(9 / 16)
    assert table[0]["searches"].split("; ") == [str(search) for search in searches]
    markdown = (out / "comparison.md").read_text()
    assert "| 1 | ensemble selected from cnn, gru | 5 | test | 77.5 ± 3.4 | " in markdown
    assert "- 1 minus 3: +27.5 points of tracks (95 % " in markdown
    assert "1 minus 3" not in done.stderr  # only rows that follow each other
    assert "2 minus 3: +6.2 points of tracks (95 % " in done.stderr
    for method in content["methods"]:
        assert method in markdown
    few, models = compare_searches(searches[:2])
    save_comparison(few, models, out)
    note = "- rows 1, 2, 3: 2 seeds, fewer than 5: another seed may give another figure\n"
    assert note in (out / "comparison.md").read_text()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_fit_the_terminal(columns: int, tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    for seed in range(2):
        models = {"ensemble": right(13 + seed), "gru": right(13), "cnn": right(12)}
        searches.append(
            write_search(
                tmp_path / f"leaky{seed}",
                models,
                seed,
                part=VALID,
                protocol="random-chunks",
                leaky=True,
                trained_on=(replace(OWN, protocol="random-chunks"),),
            )
        )
    printed = command("compare", *searches, cwd=tmp_path).stderr
    tables = printed.split("accuracies in %")[0]
    assert all(len(line) <= columns for line in tables.splitlines())
    assert "…" not in tables
    assert re.search(r"^1 ensemble .* 5 test +77\.5 ± 3\.4 ", tables, re.MULTILINE)
    assert re.search(r"^4 ensemble .* 2† valid! +42\.2 ± 2\.2 +84\.4 ± 4\.4 ", tables, re.MULTILINE)


@pytest.mark.parametrize("columns", [60])
def test_on_a_narrow_terminal_the_figures_are_below_the_model(columns: int, tmp_path: Path) -> None:
    printed = command("compare", *five_seeds(tmp_path), cwd=tmp_path).stderr
    assert "1  ensemble selected from cnn, gru\n" in printed
    assert "seeds 5, evaluated on test, track acc. 77.5 ± 3.4, " in " ".join(printed.split())


def test_the_library_function_compares_and_saves(tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    comparison = mgc_ray.compare(searches=tuple(searches), out=tmp_path / "out")
    assert comparison == mgc_ray.compare(searches=tuple(searches)) == compared(searches)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_saving_again_replaces_the_files(tmp_path: Path) -> None:
    comparison, models = compare_searches([write_search(tmp_path / "a", {"gru": right(8)})])
    for _ in range(2):
        save_comparison(comparison, models, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_place_to_save_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    (tmp_path / "file").touch()
    done = command("compare", search, "--out", "file", cwd=tmp_path, status=2)
    assert (
        done.stderr
        == "mgc-ray compare: error: --out must be a folder, but file is a file: give another\n"
    )


# --- saved comparisons ---


def test_a_saved_comparison_is_made_again_without_the_searches(tmp_path: Path) -> None:
    folds = [
        write_search(
            tmp_path / f"f{fold}",
            {"ensemble": right(3, fold, 4), "gru": right(2, fold, 4)},
            artists=artists,
            fold=f"{fold}/2",
            trained_on=(OWN, TrainedOn("/x/more.csv", "added", "genres")),
            selected_on=OUT_OF_FOLD,
        )
        for fold, artists in ((1, "ab"), (2, "cd"))
    ]
    searches = [*five_seeds(tmp_path), *folds]
    first = command("compare", *searches, "--out", "saved", "--json", cwd=tmp_path)
    for search in searches:
        shutil.rmtree(search)
    again = command("compare", "saved", "--out", "saved", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    found = [(row["folds"], row["trained_on"]) for row in json.loads(first.stdout)["rows"]]
    assert (2, ["x/more (genres)"]) in found
    assert again.stderr == first.stderr


def test_a_saved_comparison_is_continued_with_more_seeds(tmp_path: Path) -> None:
    searches = five_seeds(tmp_path)
    comparison, models = compare_searches(searches[:2])
    save_comparison(comparison, models, tmp_path / "saved")
    assert compared([tmp_path / "saved", *searches[2:]]) == compared(searches)
    with pytest.raises(RequestError, match="but .*s1 is given twice"):
        compared([tmp_path / "saved", *searches[1:]])


# --- what is refused ---


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    done = command("compare", "nowhere", cwd=tmp_path, status=2)
    assert done.stderr == (
        "mgc-ray compare: error: nowhere is no search: search.json is missing; give a search, by "
        "its name or folder (results/NAME)\n"
    )


def test_a_search_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    search = write_search(tmp_path / "a", {"gru": right(8)})
    with pytest.raises(RequestError, match="but .*a is given twice .*: leave it out"):
        compared([search, search])
    same = write_search(tmp_path / "b", {"gru": right(8)})
    with pytest.raises(RequestError, match="are both gru of seed 0, split seed 0: leave one"):
        compared([search, same])


# --- the whole program ---


def test_comparing_loads_neither_ray_nor_torch() -> None:
    code = "import sys, mgc_ray.compare; print({'ray', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_real_search_has_the_metrics_that_it_reported(home: Path) -> None:
    content = json.loads(command("compare", "results/first", "--json", cwd=home).stdout)
    ensemble = load_search(home / "results/first").ensemble
    assert isinstance(ensemble, EnsembleInfo)
    rows = {row["model"]: row for row in content["rows"]}
    assert rows.keys() == {"ensemble", "gru", "cnn"}
    for name, row in rows.items():
        test = ensemble.models[name].test
        assert test
        expected = as_json(test)
        for figure in ("track_accuracy", "chunk_accuracy", "interval_95", "tracks"):
            assert row[figure] == expected[figure], figure
        assert row["macro_f1"] == pytest.approx(test.macro_f1)
        assert row["parameters"] == ensemble.models[name].parameters
        assert (row["evaluated_on"], row["seeds"], row["trained_on"]) == ("test", 1, [])
    assert len(content["differences"]) == 3
    assert read_runs([home / "results/first"])[0] == list(ensemble.genres)
