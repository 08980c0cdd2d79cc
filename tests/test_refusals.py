"""What a command refuses: in one line, at once, before anything is made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgc_ray.models import families
from mgc_ray.terminal.main import commands
from tests.commands import command

SHORT = 1.0  # seconds of CPU time

# prints exit status, CPU seconds of the whole process, and which slow libraries were imported
IN_A_PROCESS = """
import importlib, json, sys, time
from mgc_ray.terminal.command import status_of
name, *argv = sys.argv[1:]
status = status_of(name, importlib.import_module(f"mgc_ray.{name}").main, argv)
loaded = [library for library in ("torch", "ray", "optuna") if library in sys.modules]
print(json.dumps([status, time.process_time(), loaded]))
"""

WRONG = [  # (command and options, what the message must have)
    ("search --famly gru", "no option --famly (nearest: --family)"),
    ("search --family grru", "but it is 'grru' (nearest: gru)"),
    ("search --family gru --set dropuot=0.1", "no setting 'dropuot' (nearest: dropout)"),
    ("search --family gru --set dropout=2", "dropout must be a number from 0 to below 1"),
    ("search --family gru --set tuning.kep=3", "'tuning.kep' (nearest: tuning.keep)"),
    ("search --family gru --trials 0", "--trials must be a whole number, 1 or more"),
    ("search --family gru --protocol groupd", "but it is 'groupd' (nearest: grouped)"),
    ("search --family gru --metric macro-f1", "but it is 'macro-f1' (nearest: macro_f1)"),
    ("search --family gru --features chrma", "but it is 'chrma' (nearest: chroma)"),
    ("search --family ./missing.py", "--family missing.py cannot be read"),
    ("preprocess --track music", "no option --track (nearest: --tracks)"),
    ("preprocess --dataset d --tracks m --features chrma", "'chrma' (nearest: chroma)"),
    ("preprocess --dataset d --tracks m --set dataset.synthetc=2", "(nearest: dataset.synthetic)"),
    ("preprocess --tracks music", "--dataset is needed"),
    ("train --famly gru", "no option --famly (nearest: --family)"),
    ("train --family cn --dataset d", "but it is 'cn' (nearest: cnn)"),
    ("train --family cnn --dataset d --set hiden=3", "'hiden' (nearest: hidden)"),
    ("train --family cnn --dataset d --set hidden=0", "hidden must be a whole number from 1"),
    ("pretrain --ot x", "no option --ot (nearest: --out)"),
    ("pretrain --family gur --dataset d --out o", "but it is 'gur' (nearest: gru)"),
    ("pretrain --family gru --dataset d --out o --set masks=-1", "masks must be a whole number fr"),
    ("evaluate --trakcs t", "no option --trakcs (nearest: --tracks)"),
    ("evaluate --tracks t --split tests", "but it is 'tests' (nearest: test)"),
    ("evaluate --tracks t --family grru", "but it is 'grru' (nearest: gru)"),
    ("ensemble s --ut o", "no option --ut (nearest: --out)"),
    ("ensemble s --out o --top-k none", "--top-k must be a whole number, 1 or more"),
    ("ensemble s --out o --family grru", "but it is 'grru' (nearest: gru)"),
    ("compare s --otu o", "no option --otu (nearest: --out)"),
    ("predict --modle m song.wav", "no option --modle (nearest: --model)"),
    ("predict --family grru song.wav", "but it is 'grru' (nearest: gru)"),
    ("serve --prot 80", "no option --prot (nearest: --port)"),
    ("serve --port 65536", "--port must be a whole number from 1 to 65535, but it is 65536"),
    ("serve --family grru", "but it is 'grru' (nearest: gru)"),
    ("export --onx f", "no option --onx (nearest: --onnx)"),
    ("export --onnx f.onnx --family grru", "but it is 'grru' (nearest: gru)"),
    ("report s --otu f", "no option --otu (nearest: --out)"),
    ("synth --track-per-genre 3", "no option --track-per-genre (nearest: --tracks-per-genre)"),
    ("synth --out o --tracks-per-genre 0", "--tracks-per-genre must be a whole number, 1 or mor"),
]


def test_wrong_requests_are_tested_for_each_command() -> None:
    assert {line.split()[0] for line, _ in WRONG} == set(commands())


@pytest.mark.parametrize(("line", "reason"), WRONG)
def test_a_wrong_request_is_refused_within_a_second_with_the_nearest_name(
    line: str, reason: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    status, seconds, loaded = json.loads(done.stdout)
    assert status == 2
    assert loaded == []
    assert seconds < SHORT
    assert done.stderr.startswith(f"{line.split()[0]}: error: ")
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("report", ("search", "--out", "search.json"), "--out must end in .html"),
        ("export", ("--onnx", "ensemble.json"), "--onnx must end in .onnx"),
    ],
)
def test_no_file_of_another_kind_is_overwritten(
    tmp_path: Path, name: str, options: tuple[str, ...], reason: str
) -> None:
    if name == "export":
        pytest.importorskip("onnxscript")
    (tmp_path / "search.json").write_text("kept")
    (tmp_path / "ensemble.json").write_text("kept")
    done = command(name, *options, cwd=tmp_path, status=2)
    assert reason in done.stderr
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept"}


def test_a_search_that_is_refused_leaves_its_name_free(home: Path, tmp_path: Path) -> None:
    for genre in ("jazz", "rock"):
        (tmp_path / "music" / genre).mkdir(parents=True)
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
        (["--family", "grü"], f"--family must be one of {', '.join(families())}, or the path of a"),
        (["--family", "gru", "--tracks", "nowhere"], "but nowhere does not exist"),
        (["--family", "gru", "--name", "a/b"], "--name must be one folder name"),
        (["--family", "gru", "--set", "lr"], "--set takes NAME=VALUE, but it is 'lr'"),
        (["--resume", "nothing"], "is no search: search.json is missing"),
        (["--family", "gru", "--trials", "x"], "must be a whole number, 1 or more, but it is 'x'"),
        (["--family", "gru", "--results", sys.executable], "--results must be a folder"),
        (["--family", "transfer"], "--init-from MODEL and --family transfer need one another"),
        ([], "--family is needed, e.g. --family gru (or --resume NAME)"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(
    args: list[str], text: str, tmp_path: Path
) -> None:
    done = command("search", *args, cwd=tmp_path, status=2)
    assert done.stderr.startswith("mgc_ray.search: error: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr
    assert not list(tmp_path.iterdir())


def test_more_than_the_cluster_has_is_refused_before_the_corpus_is_written(home: Path) -> None:
    args = ["--family", "gru", "--smoke", "--name", "greedy"]
    done = command("search", *args, "--gpus-per-trial", 3, cwd=home, status=2)
    assert "at most the cluster's GPUs (0)" in done.stderr
    assert not (home / "results/greedy").exists()


def test_a_cluster_that_does_not_answer_is_refused_at_once(tmp_path: Path) -> None:
    """In a process of its own, as in this one a cluster runs already."""
    code = (
        "from mgc_ray.config import ClusterConfig; from mgc_ray.tuning.cluster import ray_cluster\n"
        "with ray_cluster(ClusterConfig(address='127.0.0.1:9')): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1].startswith(
        "mgc_ray.RequestError: no Ray cluster answers at '127.0.0.1:9' (Connection refused)"
    )


def test_a_name_that_is_taken_is_refused_with_both_ways_out(home: Path) -> None:
    done = command("search", "--family", "gru", "--name", "first", cwd=home, status=2)
    assert "continue it by --resume first, or choose another --name" in done.stderr
    done = command("search", "--resume", "frist", cwd=home, status=2)
    assert "search.json is missing (nearest: first)" in done.stderr


def test_a_file_that_looks_like_an_option_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "-song.wav").write_bytes(b"")
    done = command("predict", "-song.wav", cwd=tmp_path, status=2)
    assert "write a file whose name begins with - as ./-song.wav" in done.stderr


def test_evaluate_refuses_genres_that_the_model_does_not_know(home: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,genre\na.wav,polka\n")
    model = home / "results/first/ensemble"
    done = command("evaluate", "--model", model, "--tracks", "t.csv", cwd=tmp_path, status=2)
    assert "but the table has polka" in done.stderr


def test_an_output_folder_that_is_a_file_is_one_line_and_no_traceback(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    dataset = home / json.loads((home / "printed.json").read_text())["dataset"]
    for name, *args in (
        ("train", "--family", "cnn", "--dataset", dataset, "--out", "file"),
        ("ensemble", home / "results/first", "--out", "file"),
        ("synth", "--tracks-per-genre", 1, "--out", "file"),
    ):
        done = command(str(name), *args, cwd=tmp_path, status=1)
        assert done.stderr.splitlines()[-1].startswith(f"mgc_ray.{name}: error: ")


def test_a_warm_start_from_no_search_is_refused(home: Path) -> None:
    args = ("--family", "gru", "--smoke", "--warm-start", "nowhere")
    done = command("search", *args, cwd=home, status=2)
    assert "results/nowhere is no search: search.json is missing" in done.stderr
    assert not (home / "results/gru-001").exists()
