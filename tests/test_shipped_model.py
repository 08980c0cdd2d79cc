"""The model that comes with the program: small, documented, and used where no model is given."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc_ray.corpus.composer import GENRES, synthesise
from mgc_ray.data.features import TrackFeatures
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS
from mgc_ray.data.features.array import Array
from mgc_ray.ensembling.saved import SongFeatures, load_ensemble, shipped_model
from mgc_ray.evaluation.metrics import accuracy, log_loss
from mgc_ray.models import discriminant
from mgc_ray.results import OUT_OF_FOLD, PREDICTIONS, read_predictions
from tests.commands import command

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, synthesise("classical", 3, 0, 12.0), 22050)
    return path


def test_it_has_at_most_8_mb_and_records_what_it_was_trained_on() -> None:
    folder = shipped_model()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8e6
    info = load_ensemble(folder).info
    assert info.genres == GENRES
    assert any("log_mel.csv" in one.source for one in info.trained_on)
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert str(Path.home()) not in text
    assert '": "/' not in text  # no path of the machine it was made on


def test_it_hears_by_a_pre_trained_tagger_and_by_arrays_computed_from_audio() -> None:
    tagger, arrays = load_ensemble(shipped_model()).inputs
    assert list(tagger.columns) == ["musicnn"]
    feature = Array(bands=128, frames=387, value_type="uint8", recipe=GTZAN_ARRAYS)
    assert arrays.columns == {"array": feature}


def test_without_the_taggers_files_a_smaller_model_says_what_it_costs(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICNN", str(tmp_path / "nowhere"))
    done = command("predict", "--json", song, cwd=tmp_path)
    assert len(_genres(done.stdout)) == len(GENRES)
    (line,) = done.stderr.splitlines()
    assert re.search(
        r"^a smaller model is used: .*nowhere.*Its accuracy is 7\d\.\d%, that of the whole model "
        r"8\d\.\d% \(out of fold\)$",
        line,
    )


def test_it_takes_arrays_without_the_members_that_need_audio(tmp_path: Path) -> None:
    ensemble = load_ensemble(shipped_model())
    np.save(tmp_path / "song.npy", np.random.default_rng(0).integers(0, 255, (128, 387), np.uint8))
    tagger, arrays = ensemble.compute(tmp_path / "song.npy").inputs
    assert tagger is None
    assert arrays is not None
    assert sum(ensemble.predict(tmp_path / "song.npy").values()) == pytest.approx(1)


def test_its_figures_are_those_of_its_predictions() -> None:
    info = load_ensemble(shipped_model()).info
    table = read_predictions(shipped_model() / PREDICTIONS)
    assert table.genres == info.genres
    for name, model in info.models.items():
        predictions = table.of(name, OUT_OF_FOLD)
        assert predictions
        figures = model.held_out
        assert figures.tracks == len(predictions.true)
        assert figures.track_accuracy == accuracy(predictions.predicted, predictions.true)
        # probabilities in the table have six decimals
        assert figures.log_loss == pytest.approx(
            log_loss(predictions.probs, predictions.true), abs=1e-5
        )


def test_members_of_one_fold_share_their_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were trained on the same tracks, so they standardise bands in the same way."""
    ensemble = load_ensemble(shipped_model())
    folds = {member.name.rpartition("-")[2] for member in ensemble.info.members}
    calls = []
    statistics = discriminant.statistics

    def counted(x: object) -> object:
        calls.append(x)
        return statistics(x)

    monkeypatch.setattr(discriminant, "statistics", counted)
    arrays = TrackFeatures({"array": np.zeros((2, 128, 387), np.uint8)}, float("nan"), "")
    ensemble.predict_song(SongFeatures((None, arrays)))
    assert len(ensemble.checkpoints) > len(folds) >= len(calls) > 0


def _genres(stdout: str) -> dict[str, float]:
    (prediction,) = json.loads(stdout)
    assert sum(prediction["genres"].values()) == pytest.approx(1)
    return dict(prediction["genres"])


def test_predict_uses_it_where_no_model_is_given(song: Path, tmp_path: Path) -> None:
    default = command("predict", "--json", song, cwd=tmp_path)
    given = command("predict", "--json", "--model", shipped_model(), song, cwd=tmp_path)
    assert _genres(default.stdout) == _genres(given.stdout)
