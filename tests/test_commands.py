"""The commands as a user runs them: real processes, exit statuses, standard output and error."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgc_ray.data.synth import GENRES, synthesise
from mgc_ray.models import families
from tests.commands import command


def test_search_says_what_it_searches_and_ends_with_all_that_is_needed(home: Path) -> None:
    said = (home / "said.txt").read_text()
    for part in (
        "No --tracks given: searching on the built-in corpus, which the program synthesises; its "
        "figures say nothing of real music.\n",
        "Leaderboard (results/first/leaderboard.csv)",
        "TEST (protocol grouped): ",
        "95 % interval",
        "All of it lies in results/first",
        "tensorboard --logdir results/first/tensorboard",
        "python -m mgc_ray.predict --model results/first/ensemble results/corpora/",
        "python -m mgc_ray.search --family gru cnn --tracks YOUR_FOLDER",
    ):
        assert part in said
    assert "INFO" not in said
    assert "WARNING" not in said


def test_standard_output_of_search_is_one_line_of_json_equal_to_the_file(home: Path) -> None:
    lines = (home / "said.json").read_text().splitlines()
    assert len(lines) == 1
    content = json.loads(lines[0])
    assert content == json.loads((home / "results/first/search.json").read_text())
    assert content["finished"]
    assert content["protocol"] == "grouped"
    assert content["leaky"] is False
    assert content["request"]["families"] == ["gru", "cnn"]
    assert set(content["versions"]) >= {"mgc_ray", "python", "torch", "ray", "optuna"}
    for part in ("validation", "test"):
        figures = content["ensemble"][part]
        interval = figures["interval_95"]
        assert interval["low"] <= figures["track_accuracy"] <= interval["high"]
        assert np.sum(figures["confusion_matrix"]) == figures["tracks"]


def test_a_search_is_one_folder(home: Path) -> None:
    folder = home / "results/first"
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "search.json",
        "leaderboard.csv",
        "study.journal",
        "trials",
        "ensemble",
        "tensorboard",
        "report.html",
    }
    with open(folder / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["trial"] for row in rows) == ["cnn-0001", "gru-0000"]
    assert {row["status"] for row in rows} <= {"completed", "stopped_early"}


def test_a_warm_streamed_search_knows_the_first_ones_trials(home: Path) -> None:
    settings = ("--family", "gru", "--smoke", "--name", "warm", "--json")
    done = command("search", *settings, "--warm-start", "first", "--memory", "0", cwd=home)
    assert "starting from first: its outcomes are known" in done.stderr
    assert "GiB of spectrograms are streamed from disk" in done.stderr
    content = json.loads(done.stdout)
    assert content["finished"]
    assert content["request"]["warm_start"] == ["first"]
    params = [
        json.loads(path.read_text())["params"]
        for name in ("first", "warm")
        for path in (home / "results" / name / "trials").glob("gru-*/trial.json")
    ]
    assert len(params) == 3
    assert len({json.dumps(p, sort_keys=True) for p in params}) == 3  # the defaults ran once


def test_the_test_figure_is_what_evaluate_gives_on_those_tracks(home: Path) -> None:

    import pyarrow.parquet as pq

    content = json.loads((home / "said.json").read_text())
    tracks = pq.read_table(home / content["dataset"] / "tracks.parquet").to_pylist()
    with open(home / "test.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "genre", "artist", "split"])
        writer.writerows(
            [home / row["path"], row["genre"], row["artist"], row["split"]] for row in tracks
        )
    model = home / "results/first/ensemble"
    done = command(
        "evaluate", "--model", model, "--tracks", "test.csv", "--split", "test", "--json", cwd=home
    )
    figures = json.loads(done.stdout)
    told = content["ensemble"]["test"]
    for name in ("track_accuracy", "chunk_accuracy", "macro_f1", "confusion_matrix"):
        assert figures[name] == told[name]
    assert figures["tracks"] == sum(row["split"] == "test" for row in tracks)


def test_predict_answers_each_format_and_length_and_names_what_it_cannot_read(
    home: Path, tmp_path: Path
) -> None:
    long = synthesise("metal", 0, seconds=20.0)
    files = {
        "long.wav": (long, 22050),
        "stereo.flac": (np.stack([long, -0.5 * long], 1), 44100),
        "song.mp3": (long[: 22050 * 5], 22050),
        "short.ogg": (long[:9000], 8000),
    }
    for name, (samples, rate) in files.items():
        soundfile.write(tmp_path / name, samples, rate)
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8 no music")
    model = home / "results/first/ensemble"
    names = [*files, "cover.jpg", "missing.wav"]
    done = command("predict", "--model", model, *names, cwd=tmp_path, status=1)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(files)
    assert "cover.jpg: error: not audio" in done.stderr
    assert "missing.wav: error: no such file" in done.stderr

    done = command("predict", "--model", model, "--json", *names, cwd=tmp_path, status=1)
    answers = json.loads(done.stdout)
    assert [answer["file"] for answer in answers] == names
    for answer in answers[:4]:
        assert set(answer["genres"]) == set(GENRES)
        assert sum(answer["genres"].values()) == pytest.approx(1)
    assert answers[4]["error"].startswith("not audio")
    command("predict", "--model", model, "long.wav", cwd=tmp_path, status=0)


def test_ensemble_gathers_two_searches_over_one_dataset(home: Path) -> None:
    command("search", "--family", "lstm", "--smoke", "--name", "second", cwd=home)
    done = command(
        "ensemble",
        *("results/first", "results/second", "--out", "both", "--json"),
        cwd=home,
    )
    content = json.loads(done.stdout)
    considered = {name.split("-")[0] for name in content["considered"]}
    assert considered == {"first.gru", "first.cnn", "second.lstm"}
    assert content["test"]["tracks"] == 30
    files = (home / "results/corpora").rglob("*.wav")
    command("predict", "--model", "both", next(files), cwd=home)


def test_pretrained_weights_start_a_search_whose_best_are_refitted(home: Path) -> None:
    corpus = home / "results/corpora/built-in-9x3s"
    command(
        "preprocess",
        *("--tracks", corpus, "--dataset", "unlabelled", "--protocol", "unlabelled"),
        cwd=home,
    )
    done = command(
        "pretrain",
        *("--family", "gru", "--dataset", "unlabelled", "--out", "weights", "--json"),
        *("--set", "max_epochs=1", "--set", "blocks=3"),
        cwd=home,
    )
    assert json.loads(done.stdout)["epoch"] == 1
    done = command(
        "search",
        *("--family", "transfer", "statistics", "--init-from", "weights", "--smoke"),
        *("--refit-folds", 2, "--name", "refitted", "--json"),
        cwd=home,
    )
    content = json.loads(done.stdout)["ensemble"]
    assert content["selected_on"] == "out_of_fold"
    assert "(crops of one recording)" in done.stderr
    assert content["validation"]["tracks"] == 60  # of train and validation, none given up
    assert content["test"]["tracks"] == 30
    assert {name.rsplit("-", 1)[1] for name in (m["name"] for m in content["members"])} == {
        "fold1",
        "fold2",
    }
    assert set(content["models"]) == {"ensemble", "transfer", "statistics"}
    config = json.loads(
        next((home / "results/refitted/refit").glob("transfer-*/fold-1/config.json")).read_text()
    )
    assert config["params"]["backbone"] == "gru"
    assert config["params"]["backbone_config"]["blocks"] == 3
    assert [one["task"] for one in config["trained_on"]] == ["crops of one recording", "genres"]
    with open(home / "results/refitted/ensemble/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["model"], row["part"]) for row in rows} == {
        (model, part) for model in content["models"] for part in ("out_of_fold", "test")
    }
    told = [row for row in rows if (row["model"], row["part"]) == ("ensemble", "test")]
    genres = [name for name in rows[0] if name in GENRES]
    right = [max(genres, key=lambda g: float(row[g])) == row["genre"] for row in told]
    assert sum(right) / len(right) == pytest.approx(content["test"]["track_accuracy"])
    song = next(corpus.rglob("*.wav"))
    command("predict", "--model", "results/refitted/ensemble", song, cwd=home)
    done = command("predict", "--model", "weights", song, cwd=home, status=2)
    assert "knows no genres" in done.stderr


def test_train_writes_a_checkpoint_and_prints_its_figures(home: Path) -> None:
    dataset = json.loads((home / "said.json").read_text())["dataset"]
    done = command(
        "train",
        *("--family", "cnn", "--dataset", dataset, "--out", "checkpoint"),
        *("--set", "max_epochs=2", "--set", "lr=0.002", "--json"),
        cwd=home,
    )
    assert json.loads(done.stdout)["epoch"] in (1, 2)
    assert json.loads((home / "checkpoint/config.json").read_text())["params"]["lr"] == 0.002
    song = next((home / "results/corpora").rglob("*.wav"))
    done = command("predict", "--model", "checkpoint", song, cwd=home)
    assert done.stdout.startswith(f"{song}: ")


@pytest.mark.parametrize(
    "name", ["train", "predict", "evaluate", "synth", "ensemble", "pretrain", "compare"]
)
def test_what_needs_no_cluster_does_not_load_ray(name: str) -> None:
    code = f"import sys, mgc_ray.{name}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_to_predict_a_file_does_not_load_ray(home: Path) -> None:
    song = str(next((home / "results/corpora").rglob("*.wav")))
    code = "import sys; from mgc_ray.predict import main; main(); print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, song], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_synth_writes_a_corpus_and_refuses_another_into_the_same_folder(tmp_path: Path) -> None:
    args: list[Any] = ["--out", "corpus", "--tracks-per-genre", 1, "--workers", 1]
    done = command("synth", *args, "--seconds", 0.5, cwd=tmp_path)
    assert "10 tracks of 0.5 s in 10 genres: corpus/tracks.csv" in done.stderr
    assert len(list((tmp_path / "corpus").rglob("*.wav"))) == 10
    done = command("synth", *args, "--seconds", 0.6, cwd=tmp_path, status=2)
    assert done.stderr.startswith("mgc_ray.synth: error: ")
    assert done.stderr.count("\n") == 1


def test_every_command_has_help_and_the_readme_names_it() -> None:
    package = Path(__file__).parents[1] / "mgc_ray"
    readme = (package.parent / "README.md").read_text()
    for path in sorted(package.glob("[a-z]*.py")):
        done = command(path.stem, "--help", cwd=package)
        assert done.stdout.startswith(f"usage: python -m mgc_ray.{path.stem}")
        assert f"mgc_ray.{path.stem}" in readme
    assert families()


def test_the_console_script_is_the_same_as_python_m(home: Path) -> None:
    script = Path(sys.executable).with_name("mgc-ray")
    assert script.exists()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *args], cwd=home, capture_output=True, text=True, timeout=100, check=False
        )

    song = str(next((home / "results/corpora").rglob("*.wav")))
    model = "results/first/ensemble"
    same = command("predict", "--model", model, "--json", song, cwd=home)
    done = run("predict", "--model", model, "--json", song)
    assert (done.returncode, done.stdout) == (0, same.stdout)
    refused = run("search", "--family", "nothing")
    assert refused.returncode == 2
    assert refused.stderr.startswith("mgc_ray.search: error: --family must be one of")
    unknown = run("serach")
    assert unknown.returncode == 2
    assert "the command must be one of compare, ensemble," in unknown.stderr
    assert "(nearest: search)" in unknown.stderr
    module = subprocess.run(
        [sys.executable, "-m", "mgc_ray", "serach"], capture_output=True, text=True
    )
    assert (module.returncode, module.stderr) == (2, unknown.stderr)
    assert run("--version").stdout.count(".") == 2
