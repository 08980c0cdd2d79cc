"""ONNX files of real ensembles, by the program that others would use: onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest

from mgc_ray.data.spectrogram import features_from_json
from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
from mgc_ray.ensembling.onnx import largest_difference
from tests.commands import command

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")


@pytest.fixture(scope="module")
def exported(home: Path) -> Path:
    """The two members of a smoke search, a gru and a cnn, checked on two of its songs."""
    songs = sorted((home / "results/corpora").rglob("*.wav"))[:2]
    done = command(
        "export",
        *("--model", "results/first/ensemble", "--onnx", "genres.onnx", "--json", *songs),
        cwd=home,
    )
    assert "checked on 2 songs: probabilities differ from PyTorch's by at most" in done.stderr
    figures = json.loads(done.stdout)
    assert figures["difference"] < 1e-5
    assert (figures["other_genre"], figures["tracks"]) == (0, 2)
    return home / "genres.onnx"


def test_the_file_alone_says_what_predict_says(home: Path, exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported))
    described = session.get_modelmeta().custom_metadata_map
    genres, features = (json.loads(described[key]) for key in ("genres", "features"))
    song = sorted((home / "results/corpora").rglob("*.wav"))[5]
    spectrograms = features_from_json(features).chunks(song)
    chunks, track = session.run(None, {"spectrograms": spectrograms})
    assert chunks.shape == (len(spectrograms), len(genres))
    expected = load_ensemble(home / "results/first/ensemble").predict(song)
    for genre, share in expected.items():
        assert track[genres.index(genre)] == pytest.approx(share, abs=1e-5)
    assert json.loads(described["trained_on"])
    assert str(home) not in json.dumps(described)  # no place of this machine


def test_any_number_of_chunks_is_taken(home: Path, exported: Path) -> None:
    ensemble = load_ensemble(home / "results/first/ensemble")
    random = np.random.default_rng(0)
    shape = (ensemble.features.bands, ensemble.features.frames)
    tracks = [random.normal(-40, 15, (n, *shape)).astype(np.float32) for n in (1, 3, 8)]
    assert largest_difference(ensemble, exported, tracks) == (pytest.approx(0, abs=1e-5), 0)


def test_a_file_of_another_model_is_told(home: Path, exported: Path) -> None:
    other = load_ensemble(next((home / "results/first/ensemble/members").iterdir()))
    random = np.random.default_rng(0)
    shape = (4, other.features.bands, other.features.frames)
    tracks = [random.normal(-40, 15, shape).astype(np.float32) for _ in range(20)]
    difference, _ = largest_difference(other, exported, tracks)
    assert difference > 1e-3


def test_a_member_of_the_shipped_model_can_be_exported(tmp_path: Path) -> None:
    """Statistics, sorted and bent to normal distributions: operations that few exporters meet."""
    member = sorted((shipped_model() / "members").iterdir())[0]
    done = command("export", "--model", member, "--onnx", "m.onnx", "--json", cwd=tmp_path)
    figures = json.loads(done.stdout)
    assert figures["difference"] < 1e-5
    assert (figures["other_genre"], figures["tracks"]) == (0, 10)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--onnx", "no/m.onnx"], "--onnx no/m.onnx must be a file in a folder that exists"),
        (["--onnx", "m.onnx", "text.wav"], "text.wav: not audio, or corrupt"),
        (["--onnx", "m.onnx", "--model", "nowhere"], "nowhere is no ensemble"),
    ],
)
def test_what_cannot_be_exported_is_refused(options: list[str], text: str, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    member = sorted((shipped_model() / "members").iterdir())[0]
    model = [] if "--model" in options else ["--model", member]
    done = command("export", *options, *model, cwd=tmp_path, status=2)
    assert text in done.stderr
