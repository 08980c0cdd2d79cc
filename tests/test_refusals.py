"""What a command refuses, in one line, before anything is made."""

import json
import sys
from pathlib import Path

import pytest

from mgc_ray.models import families
from tests.commands import command


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
        (["--family", "gru", "--set", "lr"], "--set lr needs a value, as in --set lr=0.001"),
        (["--family", "gru", "--set", "lrr=1"], "training (nearest: lr), not 'lrr=1'"),
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
    assert len(done.stderr.splitlines()) <= 1 + 4 * ("--smoke" in args)
    assert error.startswith("mgc_ray.search: error: ")
    assert text in error
    assert not list(tmp_path.glob("results/*/search.json"))


def test_a_name_that_is_taken_is_refused_with_both_ways_out(home: Path) -> None:
    done = command("search", "--family", "gru", "--name", "first", cwd=home, status=2)
    assert "go on with it by --resume first, or take another --name" in done.stderr
    done = command("search", "--resume", "frist", cwd=home, status=2)
    assert "search.json is missing; the nearest name is first" in done.stderr


def test_a_file_that_looks_like_an_option_is_told_how_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "-song.wav").write_bytes(b"")
    done = command("predict", "-song.wav", cwd=tmp_path, status=2)
    assert "a file whose name begins with - is named ./-song.wav" in done.stderr


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


def test_a_warm_start_from_no_search_is_refused(home: Path) -> None:
    done = command(
        "search", "--family", "gru", "--smoke", "--warm-start", "nowhere", cwd=home, status=2
    )
    assert "results/nowhere is no search: search.json is missing" in done.stderr
    assert not (home / "results/gru-001").exists()


def test_transfer_without_weights_is_refused(tmp_path: Path) -> None:
    done = command("search", "--family", "transfer", cwd=tmp_path, status=2)
    assert "--init-from DIR and --family transfer need one another" in done.stderr
    assert not (tmp_path / "results").exists()
