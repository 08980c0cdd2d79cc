"""ONNX files of ensembles, used by the program that others would use: onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.config import DatasetConfig
from mgc_ray.data.chunks import Features
from mgc_ray.data.features import FeatureSet, audio_features, feature_set_from_json
from mgc_ray.data.features.array import Array
from mgc_ray.ensembling.onnx import export_onnx, largest_difference
from mgc_ray.ensembling.saved import load_ensemble, shipped_model
from tests.commands import command
from tests.conftest import GENRES
from tests.made_models import Member, register_own_family, write_ensemble

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

TWO_FEATURES = DatasetConfig(features=("log_mel", "mfcc"), chunk_seconds=1.0)


def song(path: Path, seconds: float, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 22_050))
    soundfile.write(path, samples, 22_050)
    return path


def random_features(features: FeatureSet, chunks: int, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    shapes = {name: (chunks, f.bands, f.frames) for name, f in features.columns.items()}
    return {name: random.normal(-30, 10, s).astype(np.float32) for name, s in shapes.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `ensemble`, of two families that read two features, and its ONNX file."""
    folder = tmp_path_factory.mktemp("export")
    members = [
        Member("gru", {"hidden": 8, "features": "all"}, 0.5, temperature=0.7),
        Member("cnn", {"blocks": 1, "channels": 4, "features": "mfcc"}, 0.3, temperature=1.5),
        Member("cnn", {"blocks": 1, "channels": 4, "features": "log_mel", "crop": 0.5}, 0.2),
    ]
    write_ensemble(folder / "ensemble", audio_features(TWO_FEATURES), members, temperature=1.2)
    songs = [song(folder / f"{seed}.wav", 2.5, seed) for seed in range(2)]
    options = ("--model", "ensemble", "--onnx", "genres.onnx", "--json")
    done = command("export", *options, *songs, cwd=folder)
    assert "checked on 2 songs: probabilities differ from PyTorch's by at most" in done.stderr
    figures = json.loads(done.stdout)
    assert figures["difference"] < 1e-5
    assert (figures["other_genre"], figures["tracks"]) == (0, 2)
    assert figures["bytes"] == (folder / "genres.onnx").stat().st_size
    return folder


def test_the_file_alone_gives_the_probabilities_that_predict_gives(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "genres.onnx"))
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["genres"]) == list(GENRES)
    features = feature_set_from_json(json.loads(described["features"]))
    path = song(folder / "another.wav", 3.2, seed=5)
    inputs = features.compute(path).columns
    assert {one.name for one in session.get_inputs()} == set(inputs) == {"log_mel", "mfcc"}
    chunks, track = session.run(["chunks", "track"], inputs)
    ensemble = load_ensemble(folder / "ensemble")
    assert chunks == pytest.approx(ensemble.predict_song(inputs).chunks, abs=1e-5)
    assert chunks.shape == (3, len(GENRES))
    expected = ensemble.predict(path)
    for genre, share in expected.items():
        assert track[GENRES.index(genre)] == pytest.approx(share, abs=1e-5)
    assert json.loads(described["trained_on"]) == [
        {"source": "made/tracks.csv", "protocol": "grouped", "task": "genres"}
    ]
    assert str(folder) not in json.dumps(described)  # no path of this machine


def test_the_file_takes_any_number_of_chunks(folder: Path) -> None:
    ensemble = load_ensemble(folder / "ensemble")
    tracks = [random_features(ensemble.features, chunks) for chunks in (1, 3, 8)]
    difference, other_genre = largest_difference(ensemble, folder / "genres.onnx", tracks)
    assert difference == pytest.approx(0, abs=1e-5)
    assert other_genre == 0


def test_the_check_finds_a_file_of_another_model(folder: Path) -> None:
    other = write_ensemble(
        folder / "other",
        audio_features(TWO_FEATURES),
        [Member("gru", {"hidden": 8}, 1.0, standardisation=9)],
    )
    ensemble = load_ensemble(other)
    tracks = [random_features(ensemble.features, 4, seed) for seed in range(20)]
    difference, _ = largest_difference(ensemble, folder / "genres.onnx", tracks)
    assert difference > 1e-3


def test_members_with_equal_standardisation_share_their_descriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    register_own_family(tmp_path, monkeypatch)
    features = FeatureSet({"array": Array(bands=6, frames=40, value_type="float32")})
    members = [Member("my_family", {}, 0.25, standardisation=seed) for seed in (1, 2, 1, 1)]
    ensemble = load_ensemble(write_ensemble(tmp_path / "ensemble", features, members))
    export_onnx(ensemble, tmp_path / "m.onnx")
    tracks = [random_features(features, 3, seed) for seed in range(5)]
    difference, other_genre = largest_difference(ensemble, tmp_path / "m.onnx", tracks)
    assert difference == pytest.approx(0, abs=1e-5)
    assert other_genre == 0
    nodes = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert nodes.count("CumSum") == 2  # of the second member, and of the three others


def test_a_member_of_the_shipped_model_can_be_exported(tmp_path: Path) -> None:
    """Statistics, sorted and made normal: operations that few exporters meet."""
    member = sorted((shipped_model() / "members").iterdir())[0]
    done = command("export", "--model", member, "--onnx", "m.onnx", "--json", cwd=tmp_path)
    figures = json.loads(done.stdout)
    assert figures["difference"] < 1e-5
    assert (figures["other_genre"], figures["tracks"]) == (0, 10)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--onnx", "m.txt"], "--onnx must end in .onnx, but it is m.txt"),
        (["--onnx", "no/m.onnx"], "--onnx no/m.onnx must be a file in a folder that exists"),
        (["--onnx", "m.onnx", "text.wav"], "text.wav: not audio, or corrupt"),
        (["--onnx", "m.onnx", "--model", "nowhere"], "nowhere is no ensemble"),
        (["--onnx", "m.onnx", "--model", "arrays"], "this model takes no audio"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    options: list[str], text: str, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    features = FeatureSet({"array": Array(bands=4, frames=10, value_type="uint8")})
    write_ensemble(tmp_path / "arrays", features, [Member("gru", {"hidden": 2}, 1.0)])
    member = sorted((shipped_model() / "members").iterdir())[0]
    model = [] if "--model" in options else ["--model", member]
    done = command("export", *options, *model, cwd=tmp_path, status=2)
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
