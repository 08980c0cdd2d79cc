"""The commands as a user runs them: real processes, exit statuses, standard output and error."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
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
    assert said.startswith(
        "No --tracks given: searching on the built-in corpus, which the program synthesises; its "
        "figures say nothing of real music."
    )
    for part in (
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


def test_a_warm_start_from_no_search_is_refused(home: Path) -> None:
    done = command(
        "search", "--family", "gru", "--smoke", "--warm-start", "nowhere", cwd=home, status=2
    )
    assert "results/nowhere is no search: search.json is missing" in done.stderr
    assert not (home / "results/gru-001").exists()


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


def test_transfer_without_weights_is_refused(tmp_path: Path) -> None:
    done = command("search", "--family", "transfer", cwd=tmp_path, status=2)
    assert "--init-from DIR and --family transfer need one another" in done.stderr
    assert not (tmp_path / "results").exists()


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


def _read_all(terminal: int, screen: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 4096):
            screen.append(data)


def _heeds_ctrl_c() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(home: Path) -> None:
    """In a terminal, so that the live display is there too."""
    terminal, its_end = os.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "cnn", "--smoke"),
            *("--trials", "4", "--max-epochs", "12", "--concurrent", "1", "--name", "stopped"),
        ],
        cwd=home,
        stderr=its_end,
        start_new_session=True,
        preexec_fn=_heeds_ctrl_c,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"},
    )
    os.close(its_end)
    screen: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(terminal, screen))
    reader.start()
    trials = home / "results/stopped/trials"
    deadline = time.monotonic() + 120
    while not list(trials.glob("*/trial.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    status = process.wait(60)
    reader.join(20)
    said = b"".join(screen).decode()
    assert status == 130, said
    assert "of 4 trials done" in said
    assert "running: cnn-000" in said
    assert "python -m mgc_ray.search --resume stopped\r" in said
    assert "Traceback" not in said

    finished = {path: path.stat().st_mtime_ns for path in trials.glob("*/trial.json")}
    assert 1 <= len(finished) < 4
    done = command("search", "--resume", "stopped", "--json", cwd=home)
    assert sum(json.loads(done.stdout)["trials"].values()) == 4
    for path, changed in finished.items():
        assert path.stat().st_mtime_ns == changed
    again = command("search", "--resume", "stopped", cwd=home, status=2)
    assert "has ended already" in again.stderr


def _searching(home: Path, name: str, *options: str) -> subprocess.Popen[str]:
    """A search in the background, with a trial that has a state to go on from."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mgc_ray.search", "--family", "gru", "--smoke"),
            *("--max-epochs", "500", "--concurrent", "1", "--name", name, *options),
        ],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heeds_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not list((home / "results" / name).rglob("state.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_second_ctrl_c_ends_at_once_and_nothing_is_lost(home: Path) -> None:
    process = _searching(home, "twice", "--set", "patience=500")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 1
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list((home / "results/twice").rglob("state.safetensors"))


def test_a_search_that_a_scheduler_ends_keeps_its_trials_and_says_how_to_go_on(home: Path) -> None:
    process = _searching(home, "ended", "--set", "patience=500")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "stopped by SIGTERM; what is finished is kept" in said
    assert "python -m mgc_ray.search --resume ended" in said
    assert "Traceback" not in said
    assert "*** SIGTERM" not in said  # of Ray's own handler
    assert list((home / "results/ended").rglob("state.safetensors"))


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
def test_a_search_that_is_ended_while_ray_starts_says_so(tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.search", "--smoke", "--family", "gru", "--name", "early"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    while "Ray" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("report", ("here", "--out", "search.json"), "--out must end in .html"),
        ("export", ("--onnx", "ensemble.json"), "--onnx must end in .onnx"),
        ("serve", ("--port", "65536"), "must be at most 65535"),
    ],
)
def test_no_file_of_another_kind_is_written_over_and_no_port_is_beyond_all(
    tmp_path: Path, name: str, options: tuple[str, ...], reason: str
) -> None:
    if name == "export":
        pytest.importorskip("onnxscript")
    (tmp_path / "search.json").write_text("kept")
    (tmp_path / "ensemble.json").write_text("kept")
    done = command(name, *options, cwd=tmp_path, status=2)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept"}


def test_a_second_search_of_one_name_is_refused_while_the_first_lives(home: Path) -> None:
    process = _searching(home, "taken", "--set", "patience=500")
    try:
        second = command("search", "--resume", "taken", cwd=home, status=2)
        assert f"is being searched by process {process.pid} on " in second.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_search_that_is_refused_leaves_its_name_free(home: Path, tmp_path: Path) -> None:
    (tmp_path / "music/jazz").mkdir(parents=True)
    (tmp_path / "music/rock").mkdir()
    for genre in ("jazz", "rock"):
        for number in range(3):
            (tmp_path / "music" / genre / f"{number}.wav").write_bytes(b"no audio")
    args = ["--family", "gru", "--tracks", tmp_path / "music", "--name", "refused"]
    for _ in range(2):
        refused = command("search", *args, cwd=home, status=2)
        assert "has no usable track" in refused.stderr
    assert not (home / "results/refused").exists()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--family", "grü"], f"--family must be one of {', '.join(families())}, not 'grü'"),
        (["--family", "gru", "--tracks", "nowhere"], "but nowhere does not exist"),
        (["--family", "gru", "--name", "a/b"], "--name must be one folder name"),
        (["--resume", "nothing"], "is no search: search.json is missing"),
        (["--family", "gru", "--gpus-per-trial", "3", "--smoke"], "at most the cluster's GPUs (0)"),
        (["--family", "gru", "--trials", "0"], "argument --trials: must be 1 or more, but it is 0"),
        (["--family", "gru", "--trials", "x"], "must be a whole number, but it is 'x'"),
        (["--family", "gru", "--smoke", "--address", "127.0.0.1:9"], "no Ray cluster answers at"),
        (["--family", "gru", "--results", sys.executable], "--results must be a folder"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(args: list[str], text: str, tmp_path: Path) -> None:
    done = command("search", *args, cwd=tmp_path, status=2)
    error = done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) <= 2 + 3 * ("--smoke" in args)
    assert error.startswith("mgc_ray.search: error: ")
    assert text in error
    assert not list(tmp_path.glob("results/*/search.json"))


def test_a_name_that_is_taken_is_refused_with_both_ways_out(home: Path) -> None:
    done = command("search", "--family", "gru", "--name", "first", cwd=home, status=2)
    assert "go on with it by --resume first, or take another --name" in done.stderr


def test_synth_writes_a_corpus_and_refuses_another_into_the_same_folder(tmp_path: Path) -> None:
    args: list[Any] = ["--out", "corpus", "--tracks-per-genre", 1, "--workers", 1]
    done = command("synth", *args, "--seconds", 0.5, cwd=tmp_path)
    assert "10 tracks of 0.5 s in 10 genres: corpus/tracks.csv" in done.stderr
    assert len(list((tmp_path / "corpus").rglob("*.wav"))) == 10
    done = command("synth", *args, "--seconds", 0.6, cwd=tmp_path, status=2)
    assert done.stderr.startswith("mgc_ray.synth: error: ")
    assert done.stderr.count("\n") == 1


def test_evaluate_refuses_genres_that_the_model_does_not_know(home: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,genre\na.wav,polka\n")
    model = home / "results/first/ensemble"
    done = command("evaluate", "--model", model, "--tracks", "t.csv", cwd=tmp_path, status=2)
    assert "but the table has polka" in done.stderr


def test_an_output_folder_that_is_a_file_is_one_line_and_no_traceback(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    dataset = home / json.loads((home / "said.json").read_text())["dataset"]
    for name, *args in (
        ("train", "--family", "cnn", "--dataset", dataset, "--out", "file"),
        ("ensemble", home / "results/first", "--out", "file"),
        ("synth", "--tracks-per-genre", 1, "--out", "file"),
    ):
        done = command(str(name), *args, cwd=tmp_path, status=1)
        assert done.stderr.splitlines()[-1].startswith(f"mgc_ray.{name}: error: ")


def test_ctrl_c_while_preprocessing_says_how_to_go_on_and_leaves_ray_alone(
    home: Path, tmp_path: Path
) -> None:
    corpus = next((home / "results/corpora").iterdir()) / "tracks.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc_ray.preprocess", "--tracks", corpus, "--dataset", "d"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heeds_ctrl_c,
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "d/tracks.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Started a local Ray" not in said
    assert said.splitlines()[-1].startswith("stopped by Ctrl-C: the same command again")
    command("preprocess", "--tracks", corpus, "--dataset", "d", cwd=tmp_path)


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
    assert run("--version").stdout.count(".") == 2
