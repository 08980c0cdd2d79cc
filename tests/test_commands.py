"""The commands as a user runs them: exit statuses, standard output and error, files."""

import csv
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import mgc_ray
from mgc_ray.corpus.composer import GENRES, synthesise
from mgc_ray.results import load_search
from mgc_ray.settings import as_json
from mgc_ray.terminal.main import commands
from tests.commands import command, process, typed_in
from tests.made_songs import encode


def test_search_prints_what_it_searches_and_what_to_do_next(home: Path) -> None:
    printed = (home / "printed.txt").read_text()
    for part in (
        "No --tracks given: searching on the built-in corpus, which the program synthesises; its "
        "figures say nothing about real music.\n",
        "Leaderboard (results/first/leaderboard.csv)",
        "TEST (protocol grouped): ",
        "95 % interval",
        "Everything is in results/first",
        "tensorboard --logdir results/first/tensorboard",
        f"{typed_in(home, 'predict')} --model first results/corpora/",
        f"{typed_in(home, 'search')} --family gru cnn --tracks YOUR_FOLDER",
    ):
        assert part in printed
    assert "INFO" not in printed
    assert "WARNING" not in printed


def test_standard_output_of_search_is_one_line_of_json_equal_to_the_file(home: Path) -> None:
    lines = (home / "printed.json").read_text().splitlines()
    assert len(lines) == 1
    content = json.loads(lines[0])
    assert content == json.loads((home / "results/first/search.json").read_text())
    assert content["finished"]
    assert content["protocol"] == "grouped"
    assert content["leaky"] is False
    assert content["config"]["family"] == ["gru", "cnn"]
    assert set(content["versions"]) >= {"mgc_ray", "python", "torch", "ray", "optuna"}
    for part in ("held_out", "test"):
        metrics = content["ensemble"]["models"]["ensemble"][part]
        interval = metrics["interval_95"]
        assert interval["low"] <= metrics["track_accuracy"] <= interval["high"]
        assert np.sum(metrics["confusion_matrix"]) == metrics["tracks"]


def test_a_search_is_one_folder(home: Path) -> None:
    folder = home / "results/first"
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "search.json",
        "config.toml",
        "leaderboard.csv",
        "predictions.parquet",
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


def test_load_search_gives_the_results_of_a_search(home: Path) -> None:
    result = mgc_ray.load_search(home / "results/first")
    assert result.finished
    assert list(result.trials["trial"]) == [record.trial for record in result.records]
    assert result.best
    assert result.best.trial == result.trials["trial"][0]
    assert result.ensemble
    assert result.test == result.ensemble.test
    predictions = result.predictions.of("ensemble", "test")
    assert predictions
    assert result.test
    accuracy = np.mean(predictions.predicted == predictions.true)
    assert accuracy == pytest.approx(result.test.track_accuracy)


def test_a_streamed_search_that_starts_from_another_knows_its_trials(home: Path) -> None:
    settings = ("--family", "gru", "--smoke", "--name", "warm", "--json")
    done = command("search", *settings, "--warm-start", "first", "--memory", 0, cwd=home)
    assert "starting from first: its results are known" in done.stderr
    assert "GiB of features are streamed from disk" in done.stderr
    content = json.loads(done.stdout)
    assert content["finished"]
    assert content["config"]["tuning"]["warm_start"] == ["first"]
    params = [
        record.params
        for name in ("first", "warm")
        for record in load_search(home / "results" / name).records
        if record.family == "gru"
    ]
    assert len(params) == 3
    # all are different: the defaults ran once
    assert len({json.dumps(p, sort_keys=True) for p in params}) == 3


def test_a_search_without_a_family_says_which_it_takes_and_records_it(home: Path) -> None:
    done = command("search", "--smoke", "--trials", 1, "--name", "unasked", "--json", cwd=home)
    content = json.loads(done.stdout)
    assert content["why_families"].startswith("no --family is given: searching discriminant (")
    assert content["why_families"] in " ".join(done.stderr.split())
    assert content["config"]["family"] == ["discriminant"]
    assert content["best_trial"]["family"] == "discriminant"
    config = tomllib.loads((home / "results/unasked/config.toml").read_text("utf-8"))
    assert config["family"] == ["discriminant"]  # so that --config repeats it


def test_evaluate_gives_the_test_metrics_of_the_search(home: Path) -> None:
    content = json.loads((home / "printed.json").read_text())
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
    evaluation = json.loads(done.stdout)
    expected = content["ensemble"]["models"]["ensemble"]["test"]
    for name in ("track_accuracy", "chunk_accuracy", "macro_f1", "confusion_matrix"):
        assert evaluation["metrics"][name] == expected[name]
    tested = sum(row["split"] == "test" for row in tracks)
    assert evaluation["metrics"]["tracks"] == tested
    assert evaluation["known"] == 0
    same = mgc_ray.evaluate(model=str(model), tracks=str(home / "test.csv"), split="test")
    assert same.metrics.confusion_matrix == expected["confusion_matrix"]
    # all rows: the training and validation tracks are known to the model
    done = command("evaluate", "--model", model, "--tracks", "test.csv", cwd=home)
    warning = f"WARNING: {len(tracks) - tested} of the {len(tracks)} tracks were among those that"
    assert warning in done.stderr


def test_predict_reads_each_format_and_length_and_reports_what_it_cannot_read(
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
    encode(tmp_path / "phone.m4a", long[: 22050 * 5, None], 22050, "aac", "ipod")
    files["phone.m4a"] = (long[: 22050 * 5], 22050)
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8 no music")
    model = home / "results/first/ensemble"
    names = [*files, "cover.jpg", "missing.wav"]
    done = command("predict", "--model", model, *names, cwd=tmp_path, status=1)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(files)
    assert "cover.jpg: error: not audio" in done.stderr
    assert "missing.wav: error: no such file" in done.stderr

    done = command("predict", "--model", model, "--json", *names, cwd=tmp_path, status=1)
    predictions = json.loads(done.stdout)
    assert [prediction["file"] for prediction in predictions] == names
    for prediction in predictions[:5]:
        assert set(prediction["genres"]) == set(GENRES)
        assert sum(prediction["genres"].values()) == pytest.approx(1)
    assert predictions[5]["error"].startswith("not audio")
    command("predict", "--model", model, "long.wav", cwd=tmp_path, status=0)


def test_ensemble_combines_two_searches_over_one_dataset(home: Path) -> None:
    args = ("--family", "lstm", "--smoke", "--trials", 1, "--name", "second")
    command("search", *args, cwd=home)
    searches = ("results/first", "results/second")
    done = command("ensemble", *searches, "--out", "both", "--json", cwd=home)
    content = json.loads(done.stdout)
    candidates = {name.split("-")[0] for name in content["candidates"]}
    assert candidates == {"first.gru", "first.cnn", "second.lstm"}
    assert content["models"]["ensemble"]["test"]["tracks"] == 30
    assert (home / "both/predictions.parquet").exists()
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
    whole = content["models"]["ensemble"]
    assert content["selected_on"] == "out_of_fold"
    assert "(crops of one recording)" in done.stderr
    assert whole["held_out"]["tracks"] == 60  # all of train and validation
    assert whole["test"]["tracks"] == 30
    members = [member["name"] for member in content["members"]]
    assert {name.rsplit("-", 1)[1] for name in members} == {"fold1", "fold2"}
    assert set(content["models"]) == {"ensemble", "transfer", "statistics"}
    refit = home / "results/refitted/refit"
    config = json.loads(next(refit.glob("transfer-*/fold-1/config.json")).read_text())
    assert config["params"]["backbone"] == "gru"
    assert config["params"]["backbone_config"]["blocks"] == 3
    assert [one["task"] for one in config["trained_on"]] == ["crops of one recording", "genres"]
    result = load_search(home / "results/refitted")
    assert {(one.model, one.part) for one in result.predictions.predictions} == {
        (model, part) for model in content["models"] for part in ("out_of_fold", "test")
    }
    tested = result.predictions.of("ensemble", "test")
    assert tested
    accuracy = np.mean(tested.predicted == tested.true)
    assert accuracy == pytest.approx(whole["test"]["track_accuracy"])
    song = next(corpus.rglob("*.wav"))
    command("predict", "--model", "results/refitted/ensemble", song, cwd=home)
    done = command("predict", "--model", "weights", song, cwd=home, status=2)
    assert "knows no genres" in done.stderr


def test_train_writes_a_checkpoint_and_prints_its_metrics(home: Path) -> None:
    dataset = json.loads((home / "printed.json").read_text())["dataset"]
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


def test_to_predict_a_file_does_not_load_ray(home: Path) -> None:
    song = str(next((home / "results/corpora").rglob("*.wav")))
    code = "import sys; from mgc_ray.predict import main; main(); print('ray' in sys.modules)"
    model = str(home / "results/first/ensemble")
    done = subprocess.run(
        [sys.executable, "-c", code, "--model", model, song],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_synth_writes_a_corpus_and_refuses_another_into_the_same_folder(tmp_path: Path) -> None:
    args: list[Any] = ["--out", "corpus", "--tracks-per-genre", 1, "--workers", 1]
    done = command("synth", *args, "--seconds", 0.5, cwd=tmp_path)
    assert "10 tracks of 0.5 s in 10 genres: corpus/tracks.csv" in done.stderr
    assert len(list((tmp_path / "corpus").rglob("*.wav"))) == 10
    done = command("synth", *args, "--seconds", 0.6, cwd=tmp_path, status=2)
    assert done.stderr.startswith("mgc-ray synth: error: ")
    assert done.stderr.count("\n") == 1


def test_every_command_has_help(tmp_path: Path) -> None:
    names = commands()
    assert len(names) >= 12  # test_docs.py checks their pages
    for name in names:
        done = command(name, "--help", cwd=tmp_path)
        assert done.stdout.startswith(f"usage: mgc-ray {name}")


def test_the_console_script_is_the_same_as_python_m(home: Path) -> None:
    script = Path(sys.executable).with_name("mgc-ray")
    assert script.exists()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *args], cwd=home, capture_output=True, text=True, timeout=100, check=False
        )

    song = str(next((home / "results/corpora").rglob("*.wav")))
    model = "results/first/ensemble"
    same = process("predict", "--model", model, "--json", song, cwd=home)
    done = run("predict", "--model", model, "--json", song)
    assert (done.returncode, done.stdout) == (0, same.stdout)
    refused = run("search", "--family", "nothing")
    assert refused.returncode == 2
    assert refused.stderr.startswith("mgc-ray search: error: --family must be one of")
    unknown = run("serach")
    assert unknown.returncode == 2
    assert "the command must be one of compare, ensemble," in unknown.stderr
    assert "(nearest: search)" in unknown.stderr
    module = subprocess.run(
        [sys.executable, "-m", "mgc_ray", "serach"], capture_output=True, text=True
    )
    assert (module.returncode, module.stderr) == (2, unknown.stderr)
    assert run("--version").stdout.count(".") == 2


def test_a_search_and_a_trial_are_shown(home: Path) -> None:
    result = load_search(home / "results/first")
    done = command("show", "first", "--json", cwd=home)
    assert json.loads(done.stdout) == json.loads((home / "results/first/search.json").read_text())
    assert str(result.test) in done.stderr
    record = result.records[0]
    for given in (["first", record.trial], [f"results/first/trials/{record.trial}"]):
        done = command("show", *given, "--json", cwd=home)
        assert json.loads(done.stdout) == [as_json(record)]
        lines = [line.split() for line in done.stderr.splitlines()]
        assert ["dropout", *_shown(record.params["dropout"], 0.3)] in lines
        assert any(line[:1] == [str(record.best_epoch)] and line[-1] == "best" for line in lines)
        assert f"--family {record.family} --dataset" in done.stderr
    refused = command("show", "first", f"{record.trial}0", cwd=home, status=2)
    assert f"no trial '{record.trial}0' that has ended (nearest: {record.trial})" in refused.stderr


def _shown(value: float, default: float) -> list[str]:
    return [f"{value:.6g}", *([f"{default:g}"] if value != default else [])]


def test_a_search_is_given_by_its_name_wherever_a_model_or_report_is_made_of_it(
    home: Path, tmp_path: Path
) -> None:
    song = next((home / "results/corpora").rglob("*.wav"))
    answers = [
        command("predict", "--model", model, song, cwd=home).stdout
        for model in ("first", "results/first", "results/first/ensemble")
    ]
    assert answers[0].startswith(str(song))
    assert len(set(answers)) == 1
    page = home / "results/first/report.html"
    written = page.stat().st_mtime_ns
    done = command("report", "first", cwd=home)
    assert done.stderr.endswith("report: results/first/report.html\n")
    assert page.stat().st_mtime_ns > written
