"""ONNX files of ensembles, used by the program that others would use: onnxruntime."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from mgc_ray.config import DatasetConfig
from mgc_ray.corpus.composer import SAMPLE_RATE, synthesise
from mgc_ray.data.features import FeatureSet, audio_features, feature_set_from_json
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.ensembling.onnx import METADATA, export_onnx, largest_difference
from mgc_ray.ensembling.saved import SongFeatures, load_ensemble, shipped_model
from tests.commands import command
from tests.conftest import GENRES
from tests.ensembling.made_ensembles import as_song
from tests.made_chunks import two_kinds
from tests.made_models import Member, register_own_family, write_ensemble

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

TWO_FEATURES = DatasetConfig(features=("log_mel", "mfcc"), chunk_seconds=1.0)


def song(path: Path, seconds: float, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 22_050))
    soundfile.write(path, samples, 22_050)
    return path


def random_features(features: FeatureSet, chunks: int, seed: int = 0) -> SongFeatures:
    random = np.random.default_rng(seed)
    shapes = {name: (chunks, f.bands, f.frames) for name, f in features.columns.items()}
    return as_song({n: random.normal(-30, 10, s).astype(np.float32) for n, s in shapes.items()})


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
    features = feature_set_from_json(json.loads(described["features"])[0])
    path = song(folder / "another.wav", 3.2, seed=5)
    inputs = features.compute(path).columns
    assert {one.name for one in session.get_inputs()} == set(inputs) == {"log_mel", "mfcc"}
    chunks, track = session.run(["chunks", "track"], inputs)
    ensemble = load_ensemble(folder / "ensemble")
    assert chunks == pytest.approx(ensemble.predict_song(as_song(inputs)).chunks, abs=1e-5)
    assert chunks.shape == (3, len(GENRES))
    expected = ensemble.predict(path)
    for genre, share in expected.items():
        assert track[GENRES.index(genre)] == pytest.approx(share, abs=1e-5)
    assert json.loads(described["trained_on"]) == [
        {"source": "made/tracks.csv", "protocol": "grouped", "task": "genres"}
    ]
    assert str(folder) not in json.dumps(described)  # no path of this machine


# --- the program of the documentation, which has neither this package nor PyTorch ---


def program() -> str:
    text = (Path(__file__).parents[1] / "docs/onnx.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    return str(code)


def music(path: Path, seconds: float, rate: int) -> Path:
    """Two channels that differ, as a decoder gives them."""
    mono = soxr.resample(synthesise("jazz", 0, 0, seconds), SAMPLE_RATE, rate)
    soundfile.write(path, np.stack([0.9 * mono, 0.5 * np.roll(mono, rate // 50)], axis=1), rate)
    return path


RECIPE = Array(bands=128, frames=38, value_type="uint8", recipe=GTZAN_ARRAYS)
SETS = {
    "log_mel": audio_features(DatasetConfig()),
    "others": audio_features(
        DatasetConfig(features=("chroma", "contrast", "mfcc", "tempogram"), chunk_seconds=2.5)
    ),
    "array": FeatureSet({"array": RECIPE}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with an `ensemble` that reads one of `SETS`, exported once, and the program."""

    @functools.cache
    def export(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        members = [Member("cnn", {"blocks": 1, "channels": 2}, 1.0)]
        model = write_ensemble(folder / "ensemble", SETS[name], members, temperature=0.1)
        export_onnx(load_ensemble(model), folder / "genres.onnx")
        (folder / "onnx_genres.py").write_text(program(), "utf-8")
        return folder

    return export


@pytest.mark.parametrize(
    ("name", "song", "seconds", "rate"),
    [
        ("log_mel", "a.mp3", 9.5, 44_100),
        ("others", "a.flac", 8.0, 32_000),
        ("array", "a.wav", 34.0, 44_100),
    ],
)
def test_the_program_of_the_documentation_gives_the_probabilities_that_predict_gives(
    exported: Callable[[str], Path], name: str, song: str, seconds: float, rate: int
) -> None:
    folder = exported(name)
    path = music(folder / song, seconds, rate)
    done = subprocess.run(
        [sys.executable, "-I", "onnx_genres.py", "genres.onnx", song],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    printed = {line.split(" ", 1)[1]: float(line.split()[0]) for line in done.stdout.splitlines()}
    expected = load_ensemble(folder / "ensemble").predict(path)
    assert list(printed) == list(expected)
    assert printed == pytest.approx(expected, abs=1e-3)


def functions_of_the_program() -> dict[str, Any]:
    functions: dict[str, Any] = {}
    exec(program().partition("\nsession = ")[0], functions)
    return functions


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("seconds", "rate"), [(8.0, 44_100), (1.3, 16_000)])
def test_inputs_made_by_the_program_are_those_of_this_package(
    tmp_path: Path, name: str, seconds: float, rate: int
) -> None:
    path = music(tmp_path / "a.flac", seconds, rate)
    described = json.loads(json.dumps(SETS[name].described()))
    inputs = functions_of_the_program()["inputs_of"](str(path), described)
    expected = SETS[name].compute(path).columns
    assert inputs.keys() == expected.keys()
    for one, values in inputs.items():
        assert values.dtype == np.float32
        assert values.shape == expected[one].shape
        # a value of uint8 at the border of two steps may be the other one
        assert values == pytest.approx(expected[one], abs=1 if name == "array" else 2e-2), one


def test_arrays_are_read_as_they_were_for_training(tmp_path: Path) -> None:
    inputs_of = functions_of_the_program()["inputs_of"]
    random = np.random.default_rng(0)
    for transposed in (False, True):
        array = Array(bands=4, frames=10, value_type="uint8", transposed=transposed)
        features = FeatureSet({"array": array})
        for frames in (35, 6):
            path = tmp_path / f"{frames}.npy"
            shape = (frames, 4) if transposed else (4, frames)
            np.save(path, random.integers(0, 256, shape).astype(np.uint8))
            inputs = inputs_of(str(path), json.loads(json.dumps(features.described())))
            np.testing.assert_array_equal(inputs["array"], features.compute(path).columns["array"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("stft.n_fft", 2048),
        ("stft.win_length", 512),
        ("stft.hop_length", 255),
        ("stft.window", "hamming"),
        ("stft.center", False),
        ("stft.pad_mode", "reflect"),
        ("power", 1.0),
        ("mel.fmin", 30.0),
        ("mel.fmax", 8000.0),
        ("mel.htk", True),
        ("mel.norm", None),
        ("decibel.ref", 2.0),
        ("decibel.amin", 1e-3),
        ("decibel.top_db", 40.0),
        ("sample_rate", 16_000),
    ],
)
def test_the_program_takes_each_setting_from_the_metadata(
    tmp_path: Path, place: str, value: object
) -> None:
    inputs_of = functions_of_the_program()["inputs_of"]
    path = music(tmp_path / "a.flac", 4.0, 44_100)
    described = json.loads(json.dumps(SETS["log_mel"].described()))
    expected = inputs_of(str(path), described)["log_mel"]
    *sections, last = place.split(".")
    changed = described["inputs"]["log_mel"]
    for section in sections:
        changed = changed[section]
    assert changed[last] != value
    changed[last] = value
    other = inputs_of(str(path), described)["log_mel"]
    assert other.shape != expected.shape or np.abs(other - expected).max() > 0.5  # dB


def test_the_metadata_say_everything_in_words_too(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "genres.onnx"))
    described = session.get_modelmeta().custom_metadata_map
    assert described.keys() == METADATA.keys()
    words = described["preprocessing_in_words"]
    for part in (
        "16-bit integers are divided by 32768",
        "soxr's HQ",
        "channels averaged",
        "what fills no chunk is dropped",
        "A song shorter than a chunk is repeated",
        "Input log_mel, float32 [chunks, 128, 87], from audio of 22050 Hz",
        "periodic Hann windows of 1024 samples, one every 256 samples",
        "beyond its ends are zeros",
        "Slaney's scale and norm, not HTK's",
        "relative to 1, of at least 1e-10",
        "more than 80 dB below the largest value of the chunk",
        "Input mfcc, float32 [chunks, 20, 87]",
        "orthonormal DCT-II",
        "Output track: calibrated probabilities of the song",
    ):
        assert part in words
    documented = (Path(__file__).parents[1] / "docs/onnx.md").read_text("utf-8")
    assert [name for name in METADATA if f"`{name}`" not in documented] == []


# --- the file ---


def test_a_member_with_a_second_input_is_exported(tmp_path: Path) -> None:
    size = {"blocks": 1, "channels": 4, "hidden": 8}
    members = [
        Member("gru", size | {"crop": 0.5, "features": "log_mel+musicnn:MTT_vgg[tags]"}, 0.5),
        Member("linear", {}, 0.3, temperature=1.5),
        Member("cnn", size | {"features": "log_mel"}, 0.2),
    ]
    write_ensemble(tmp_path / "ensemble", two_kinds(), members)
    ensemble = load_ensemble(tmp_path / "ensemble")
    export_onnx(ensemble, tmp_path / "genres.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "genres.onnx"))
    for chunks in (1, 3):
        song_features = random_features(ensemble.inputs[0], chunks)
        found, _ = session.run(["chunks", "track"], song_features.shortest.columns)
        assert found == pytest.approx(ensemble.predict_song(song_features).chunks, abs=1e-5)


def test_the_file_takes_any_number_of_chunks(folder: Path) -> None:
    ensemble = load_ensemble(folder / "ensemble")
    tracks = [random_features(ensemble.inputs[0], chunks) for chunks in (1, 3, 8)]
    difference, other_genre = largest_difference(ensemble, folder / "genres.onnx", tracks)
    assert difference == pytest.approx(0, abs=1e-5)
    assert other_genre == 0


def test_members_that_read_chunks_of_two_lengths_are_in_one_file(tmp_path: Path) -> None:
    short, long = (
        FeatureSet({"log_mel": LogMel(n_mels=8, chunk_samples=22_050 * seconds)}, seconds)
        for seconds in (1, 2)
    )
    members = [
        Member("gru", {"hidden": 4}, 0.6, temperature=0.7, features=long),
        Member("cnn", {"blocks": 1, "channels": 4}, 0.4, features=short),
    ]
    ensemble = load_ensemble(write_ensemble(tmp_path / "ensemble", short, members, temperature=1.2))
    export_onnx(ensemble, tmp_path / "m.onnx")
    songs = [ensemble.compute(song(tmp_path / f"{n}.wav", n, seed=n)) for n in (1, 5, 7)]
    assert [[one.chunks for one in made.inputs] for made in songs] == [[1, 1], [5, 2], [7, 3]]
    difference, other_genre = largest_difference(ensemble, tmp_path / "m.onnx", songs)
    assert difference == pytest.approx(0, abs=1e-5)
    assert other_genre == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    assert [one.name for one in session.get_inputs()] == ["log_mel", "log_mel_2"]
    described = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    seconds = [one["chunks"]["seconds"] for one in described["inputs"].values()]
    assert seconds == [1, 2]


def test_the_check_finds_a_file_of_another_model(folder: Path) -> None:
    other = write_ensemble(
        folder / "other",
        audio_features(TWO_FEATURES),
        [Member("gru", {"hidden": 8}, 1.0, standardisation=9)],
    )
    ensemble = load_ensemble(other)
    tracks = [random_features(ensemble.inputs[0], 4, seed) for seed in range(20)]
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
    member = next((shipped_model() / "members").glob("*discriminant*"))
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
