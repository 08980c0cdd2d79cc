"""What a command refuses: in one line, at once, before anything is made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgc_ray.models import families
from mgc_ray.terminal.main import commands
from tests.commands import command
from tests.pipeline.making import without_other_clusters

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
    ("serve --token my-secret", "--token must be a file that holds the token"),
    ("serve --cors a.example", "--cors must be origins of pages as browsers send them"),
    ("similar s.wav --im t", "no option --im (nearest: --in)"),
    ("similar s.wav", "--in is needed: what predict --out TABLE --embeddings wrote"),
    ("similar --in t.parquet", "SONG is needed: an audio file, or a path that the table lists"),
    ("similar a.wav b.wav --in t.parquet", "unexpected argument 'b.wav'"),
    ("similar s.wav --in t.parquet --count 0", "--count must be a whole number, 1 or more"),
    ("export --onx f", "no option --onx (nearest: --onnx)"),
    ("export --onnx f.onnx --family grru", "but it is 'grru' (nearest: gru)"),
    ("report s --otu f", "no option --otu (nearest: --out)"),
    ("show s --jsn", "no option --jsn (nearest: --json)"),
    ("show", "SEARCH is needed: a search, by name or folder"),
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


# ---- paths, addresses and devices that are not there ----

_IN_USE = "file is a file: give another"
_NO_FOLDER = "must be a file in a folder that exists, but no does not exist: make it, or give anot"
_NO_TRACKS = "or a CSV file, but no does not exist"
_NO_DATASET = "no is no dataset: dataset.json is missing"
_NO_MODEL = "no is no ensemble: ensemble.json is missing"
_NO_SEARCH = "no is no search: search.json is missing"
_NOT_THERE = "no Ray cluster answers at '127.0.0.1:9' (Connection refused)"
_ADDRESS = "--address 127.0.0.1:9"
MISSING = [  # (command and options, what the message must have)
    ("search --family gru --tracks no", _NO_TRACKS),
    ("search --family gru --tracks file", "this table needs the columns path and genre"),
    ("search --family gru --tracks empty", "empty holds no track"),
    ("search --family gru --tracks t.csv --more-tracks no", _NO_TRACKS),
    ("search --family gru --tracks t.csv --exclude-artists no", "no cannot be read"),
    ("search --family transfer --init-from no", "no is no checkpoint: config.json is missing"),
    ("search --family gru --warm-start no", _NO_SEARCH),
    ("search --resume no", _NO_SEARCH),
    ("search --family gru --config no", "--config no cannot be read as TOML"),
    ("search --family gru --results file", f"--results must be a folder, but {_IN_USE}"),
    ("search --family gru --results file/a", f"--results must be a folder, but {_IN_USE}"),
    ("search --family gru --storage file/a", "--storage"),
    (f"search --family gru --name {'x' * 256}", "cannot be written: a name in it is too long"),
    (f"search --family gru {_ADDRESS}", _NOT_THERE),
    ("search --family gru --gpus-per-trial 1", "at most the cluster's GPUs (0 on this machine)"),
    ("preprocess --tracks no --dataset new", _NO_TRACKS),
    ("preprocess --tracks t.csv --dataset file", f"--dataset must be a folder, but {_IN_USE}"),
    (f"preprocess --tracks t.csv --dataset new {_ADDRESS}", _NOT_THERE),
    ("train --family gru --dataset no", _NO_DATASET),
    ("train --family gru --dataset empty --out file/a", f"--out must be a folder, but {_IN_USE}"),
    ("pretrain --dataset no --out new", _NO_DATASET),
    ("pretrain --dataset empty --out file", f"--out must be a folder, but {_IN_USE}"),
    ("evaluate --model no --tracks t.csv", _NO_MODEL),
    ("evaluate --tracks no", _NO_TRACKS),
    ("evaluate --tracks t.csv --split test", "--split test: t.csv has no row of that part"),
    ("ensemble no --out new", _NO_SEARCH),
    ("ensemble no --out file", f"--out must be a folder, but {_IN_USE}"),
    ("ensemble no --out full", "full holds other things: give a new folder"),
    ("compare no", _NO_SEARCH),
    ("compare no --out file", f"--out must be a folder, but {_IN_USE}"),
    ("predict --model no file", _NO_MODEL),
    ("predict no --out g.csv", "no is not a folder"),
    ("predict empty --out g.csv", "empty has no file that may be a song (it is empty)"),
    ("predict full --out no/g.csv", _NO_FOLDER),
    ("predict full --out a.csv", "must be a file in a folder that exists, but it is a folder"),
    ("predict full --out g.csv --playlists file", f"--playlists must be a folder, but {_IN_USE}"),
    ("predict full --out g.csv --model no", _NO_MODEL),
    (f"predict full --out g.csv {_ADDRESS}", _NOT_THERE),
    ("predict full --out g.csv --embeddings", "--embeddings needs a table in Parquet, but --out"),
    ("similar s.wav --in no.parquet", "but no.parquet does not exist: give another"),
    (
        "similar s.wav --in t.csv",
        "t.csv has no embeddings: make it by mgc-ray predict MUSI",
    ),
    ("similar s.wav --in t.csv --model no", _NO_MODEL),
    ("similar s.wav --in t.csv --playlist no/p.m3u8", _NO_FOLDER),
    ("similar s.wav --in t.csv --playlist p.pls", "--playlist must end in .m3u8, but it is p.pls"),
    ("export --onnx no/m.onnx", _NO_FOLDER),
    ("export --onnx m.onnx --model no", _NO_MODEL),
    ("export --onnx m.onnx no.wav", "no.wav: no such file: give another song"),
    ("report no --out r.html", _NO_SEARCH),
    ("report no --out no/r.html", _NO_FOLDER),
    ("synth --tracks-per-genre 1 --out file/a", f"--out must be a folder, but {_IN_USE}"),
    ("serve --model no", _NO_MODEL),
    (f"serve {_ADDRESS}", _NOT_THERE),
]

# the same for each line of standard input, with what was printed
IN_ONE_PROCESS = """
import contextlib, importlib, io, json, sys
from mgc_ray.terminal.command import status_of
for line in sys.stdin:
    name, *argv = line.split()
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        status = status_of(name, importlib.import_module(f"mgc_ray.{name}").main, argv)
    loaded = [library for library in ("torch", "ray") if library in sys.modules]
    print(json.dumps([status, loaded, stderr.getvalue()]))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str], str]]:
    """How each of the lines of MISSING ended."""
    folder = tmp_path_factory.mktemp("refused")
    for name in ("empty", "full", "a.csv"):
        (folder / name).mkdir()
    for name in ("file", "full/song.wav"):
        (folder / name).touch()
    rows = [f"{genre}{number}.wav,{genre}" for genre in ("jazz", "rock") for number in range(3)]
    for row in rows:
        (folder / row.partition(",")[0]).touch()
    (folder / "t.csv").write_text("\n".join(["path,genre", *rows]))
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input="\n".join(line for line, _ in MISSING),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        env=without_other_clusters() | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(folder.rglob("*")) == before
    ended = map(json.loads, done.stdout.splitlines())
    return {line: tuple(one) for (line, _), one in zip(MISSING, ended, strict=True)}


@pytest.mark.parametrize(("line", "reason"), MISSING)
def test_what_is_missing_is_refused_before_pytorch_and_ray_are_loaded(
    line: str, reason: str, refused: dict[str, tuple[int, list[str], str]]
) -> None:
    status, loaded, printed = refused[line]
    assert (status, loaded) == (2, []), printed
    assert printed.startswith(f"{line.split()[0]}: error: ")
    assert printed.count("\n") == 1
    assert reason in printed


def test_missing_files_alone_need_no_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, "predict", "no.wav", "no.mp3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout.splitlines()[-1])[::2] == [1, []]
    assert done.stderr == "no.wav: error: no such file\nno.mp3: error: no such file\n"


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
        (["--set", "hidden=8"], "--family discriminant: there is no setting 'hidden'"),
        (
            ["--set", "features=log_mel", "--features", "log_mel", "musicnn", "--set", "l2=1"],
            "--family discriminant: there is no setting 'l2'",
        ),
        (["--features", "musicnn", "--set", "shrinkage=3"], "a number from 0 to 1, but it is 3"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(
    args: list[str], text: str, tmp_path: Path
) -> None:
    done = command("search", *args, cwd=tmp_path, status=2)
    assert done.stderr.startswith("mgc-ray search: error: ")
    assert done.stderr.count("\n") == 1
    assert text in done.stderr
    assert not list(tmp_path.iterdir())


def test_more_than_the_cluster_has_is_refused_before_the_corpus_is_written(home: Path) -> None:
    args = ["--family", "gru", "--smoke", "--name", "greedy"]
    done = command("search", *args, "--gpus-per-trial", 1, cwd=home, status=2)
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


def test_a_warm_start_from_no_search_is_refused(home: Path) -> None:
    args = ("--family", "gru", "--smoke", "--warm-start", "nowhere")
    done = command("search", *args, cwd=home, status=2)
    assert "results/nowhere is no search: search.json is missing" in done.stderr
    assert not (home / "results/gru-001").exists()
