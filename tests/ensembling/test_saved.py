"""The saved ensemble: complete, sufficient by itself, and refused where it is damaged."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mgc_ray import RequestError, models
from mgc_ray.config import DatasetConfig
from mgc_ray.data import features
from mgc_ray.data.audio import UnusableTrackError, Waveform, read_waveform
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import FeatureSet, _own, chroma, musicnn
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS
from mgc_ray.data.features.array import Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.ensembling.saved import combine, load_ensemble, member_probs
from mgc_ray.evaluation.metrics import apply_temperature
from mgc_ray.models import discriminant
from mgc_ray.results import Member as SavedMember
from mgc_ray.training.checkpoint import load_checkpoint
from tests.conftest import make_chunks
from tests.data.features.made_own import write_encoder
from tests.ensembling.made_ensembles import SMALL, as_song, ensemble_of, predicted, trained
from tests.made_chunks import chunks_of_three
from tests.made_models import Member as MadeMember
from tests.made_models import register_own_family, write_ensemble

WEIGHTS = {"gru": 0.75, "cnn": 0.25}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints `gru` and `cnn`, and an ensemble of them."""
    folder, chunks = tmp_path_factory.mktemp("made"), make_chunks()
    members = [(trained(folder / name, name, chunks), weight) for name, weight in WEIGHTS.items()]
    ensemble_of(folder / "ensemble", members, chunks)
    return folder


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    """A copy of the ensemble that a test may change."""
    return Path(shutil.copytree(made / "ensemble", tmp_path / "ensemble"))


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "ensemble.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _probs(checkpoint: Path, chunks: Chunks) -> np.ndarray:
    (probs,) = member_probs([load_checkpoint(checkpoint).classifier], chunks.features)
    return probs


def _members(*values: tuple[str, float, float]) -> list[SavedMember]:
    return [SavedMember(*one) for one in values]


# --- combining ---


def test_combined_probabilities_by_hand() -> None:
    members = _members(("a", 0.75, 1.0), ("b", 0.25, 0.5))
    first = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    second = np.array([[0.5, 0.5], [0.9, 0.1], [0.25, 0.75]])
    tracks, chunks = combine(members, [first, second], [0, 0], {0: np.array([0, 0, 1])})
    # a temperature of a half squares: 0.7, 0.3 of the first track -> 49 / 58; 1 : 9 of the second
    assert tracks[0, 0] == pytest.approx(0.75 * 0.7 + 0.25 * 49 / 58)
    assert tracks[1, 0] == pytest.approx(0.75 * 0.1 + 0.25 * 1 / 10)
    assert tracks.sum(1) == pytest.approx(1)
    # chunks by themselves: 0.5 stays, 0.9 -> 81 / 82
    assert chunks[:, 0] == pytest.approx(
        [0.75 * 0.8 + 0.25 * 0.5, 0.75 * 0.6 + 0.25 * 81 / 82, 0.75 * 0.1 + 0.25 * 0.1]
    )


def test_an_ensembles_probabilities_are_the_weighted_mean_of_its_members(
    made: Path, chunks: Chunks
) -> None:
    ensemble = load_ensemble(made / "ensemble")
    tracks, by_chunk = predicted(ensemble, chunks)
    expected = sum(weight * _probs(made / name, chunks) for name, weight in WEIGHTS.items())
    assert by_chunk == pytest.approx(expected, abs=1e-7)
    assert tracks[0] == pytest.approx(by_chunk[:3].mean(0))
    assert tracks.sum(1) == pytest.approx(1)
    song = ensemble.predict_song(as_song({"array": chunks.features["array"][:3]}))
    assert song.song == pytest.approx(tracks[0])
    assert song.chunks == pytest.approx(by_chunk[:3])


def test_each_member_is_calibrated_before_the_mean(
    made: Path, tmp_path: Path, chunks: Chunks
) -> None:
    members = [(made / name, weight) for name, weight in WEIGHTS.items()]
    folder = ensemble_of(tmp_path / "e", members, chunks, temperatures=[2.0, 0.5])
    _, by_chunk = predicted(load_ensemble(folder), chunks)
    expected = 0.75 * apply_temperature(_probs(made / "gru", chunks), 2.0)
    expected += 0.25 * apply_temperature(_probs(made / "cnn", chunks), 0.5)
    assert by_chunk == pytest.approx(expected, abs=1e-7)


def test_the_ensembles_temperature_makes_it_less_sure_and_changes_no_prediction(
    saved: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "track.npy", np.random.default_rng(0).normal(size=(16, 30)) - 30)
    before = load_ensemble(saved).predict(tmp_path / "track.npy")
    _edit(saved, temperature=3.0)
    after = load_ensemble(saved).predict(tmp_path / "track.npy")
    assert list(after) == list(before)
    assert max(after.values()) < max(before.values())
    scaled = apply_temperature(np.array([*before.values()]), 3.0)
    assert [*after.values()] == pytest.approx(scaled)


def test_genres_of_a_file_come_most_probable_first(saved: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 30)).astype(np.float32) - 30
    np.save(tmp_path / "track.npy", x)
    genres = load_ensemble(saved).predict(tmp_path / "track.npy")
    assert list(genres.values()) == sorted(genres.values(), reverse=True)
    assert set(genres) == {"blues", "disco", "rock"}
    assert sum(genres.values()) == pytest.approx(1)


def test_a_checkpoint_alone_is_an_ensemble_of_one(made: Path, chunks: Chunks) -> None:
    ensemble = load_ensemble(made / "gru")
    assert [(m.weight, m.temperature) for m in ensemble.info.members] == [(1.0, 1.0)]
    assert ensemble.info.test is None
    assert ensemble.genres == chunks.info.genres
    _, by_chunk = predicted(ensemble, chunks)
    assert by_chunk == pytest.approx(_probs(made / "gru", chunks), abs=1e-7)


# --- members that read different features ---


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members that read log_mel, log_mel + mfcc, and chroma."""
    folder, chunks = tmp_path_factory.mktemp("mixed"), chunks_of_three()
    members = [
        (trained(folder / "gru", "gru", chunks, features="log_mel"), 0.5),
        (trained(folder / "cnn", "cnn", chunks, features="log_mel+mfcc"), 0.25),
        (trained(folder / "lstm", "lstm", chunks, features="chroma"), 0.25),
    ]
    return ensemble_of(folder / "ensemble", members, chunks)


def test_members_that_read_different_features_predict_together(mixed: Path) -> None:
    chunks, ensemble = chunks_of_three(), load_ensemble(mixed)
    (features,) = ensemble.inputs
    assert list(features.columns) == ["log_mel", "mfcc", "chroma"]
    _, by_chunk = predicted(ensemble, chunks)
    expected = sum(
        member.weight * _probs(mixed / "members" / member.name, chunks)
        for member in ensemble.info.members
    )
    assert by_chunk == pytest.approx(expected, abs=1e-7)
    without = {name: x for name, x in chunks.features.items() if name != "chroma"}
    with pytest.raises(KeyError, match="chroma"):
        ensemble.predict_song(as_song(without))


def test_audio_is_decoded_once_and_each_feature_is_computed_once(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("librosa")
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "song.wav", 0.1 * random.standard_normal(22_050), 22_050)
    ensemble = load_ensemble(mixed)
    calls: dict[str, int] = {}
    for name, feature in ensemble.inputs[0].columns.items():
        compute = type(feature).compute

        def counted(
            self: Any, track: DecodedTrack, name: str = name, compute: Any = compute
        ) -> np.ndarray:
            calls[name] = calls.get(name, 0) + 1
            return compute(self, track)  # type: ignore[no-any-return]

        monkeypatch.setattr(type(feature), "compute", counted)
    decoded = []

    def read(path: Path) -> Waveform:
        decoded.append(path)
        return read_waveform(path)

    monkeypatch.setattr(features, "read_waveform", read)
    probs = ensemble.predict(tmp_path / "song.wav")
    assert sum(probs.values()) == pytest.approx(1)
    assert decoded == [tmp_path / "song.wav"]
    # mfcc is made from a log-mel of its own settings
    assert calls == {"log_mel": 2, "mfcc": 1, "chroma": 1}


# --- members that read chunks of several kinds ---


def test_members_that_read_other_chunks_are_one_ensemble(tmp_path: Path) -> None:
    """Each gives for a song what it gives alone; the shortest chunks are those of the ensemble."""
    pytest.importorskip("librosa")
    log_mel = LogMel(n_mels=8, chunk_samples=22_050)
    quiet = dataclasses.replace(log_mel, top_db=40.0)
    array = Array(bands=128, frames=387, value_type="uint8", recipe=GTZAN_ARRAYS)
    made = [
        # another setting, another length, both features of a member before, an array of audio
        ("gru", FeatureSet({"log_mel": log_mel}, 1.0)),
        ("cnn", FeatureSet({"log_mel": quiet}, 1.0)),
        ("cnn", FeatureSet({"log_mel": dataclasses.replace(log_mel, chunk_samples=55_125)}, 2.5)),
        ("gru", FeatureSet({"chroma": chroma.Feature(log_mel=log_mel)}, 1.0)),
        ("cnn", FeatureSet({"array": array}, 1.0)),
    ]
    members = [
        MadeMember(family, SMALL, 0.2, temperature=1.0 + i, features=features)
        for i, (family, features) in enumerate(made)
    ]
    folder = write_ensemble(tmp_path / "ensemble", made[0][1], members, temperature=1.5)
    ensemble = load_ensemble(folder)
    assert [list(features.columns) for features in ensemble.inputs] == [
        ["log_mel", "chroma"],
        ["log_mel"],
        ["log_mel"],
        ["array"],
    ]
    seconds = 6
    noise = 0.1 * np.random.default_rng(0).standard_normal(seconds * 22_050)
    soundfile.write(tmp_path / "song.wav", noise, 22_050)
    song = ensemble.compute(tmp_path / "song.wav")
    assert [one.chunks for one in song.inputs] == [6, 6, 2, 1]
    alone = [load_ensemble(folder / "members" / f"member-{i}") for i in range(len(made))]
    found = [one.predict_song(one.compute(tmp_path / "song.wav")) for one in alone]
    temperatures = [member.temperature for member in members]
    songs = [apply_temperature(one.song, t) for one, t in zip(found, temperatures, strict=True)]
    expected = apply_temperature(np.mean(songs, 0), 1.5)
    prediction = ensemble.predict_song(song)
    assert prediction.song == pytest.approx(expected, abs=1e-6)
    # members with other chunks add what they say of the whole song
    of_chunks = [apply_temperature(found[i].chunks, temperatures[i]) for i in (0, 3)]
    expected = apply_temperature((sum(of_chunks) + songs[1] + songs[2] + songs[4]) / 5, 1.5)
    assert prediction.chunks == pytest.approx(expected, abs=1e-6)
    assert ensemble.predict_songs([song, song])[1].chunks == pytest.approx(expected, abs=1e-6)
    # an array is predicted by the members that can read it
    (made_array,) = song.inputs[3].columns["array"]  # type: ignore[union-attr]
    np.save(tmp_path / "song.npy", made_array)
    of_array = ensemble.compute(tmp_path / "song.npy")
    assert of_array.inputs[:3] == (None, None, None)
    predicted_alone = apply_temperature(songs[4], 1.5)
    for one in (ensemble.predict_song(of_array), ensemble.predict_songs([song, of_array])[1]):
        assert one.song == pytest.approx(predicted_alone, abs=1e-6)
    without = load_ensemble(folder / "members" / "member-0")
    with pytest.raises(UnusableTrackError, match="takes audio"):
        without.compute(tmp_path / "song.npy")


def test_members_that_need_what_is_not_installed_are_left_out_where_others_can_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("librosa")
    tagger = musicnn.Feature(model="MTT_vgg", chunk_samples=48_000)
    log_mel = FeatureSet({"log_mel": LogMel(n_mels=8, chunk_samples=22_050)}, 1.0)
    members = [
        MadeMember("linear", {}, 0.6, features=FeatureSet({"musicnn:MTT_vgg": tagger}, 3.0)),
        MadeMember("gru", SMALL, 0.3),
        MadeMember("gru", SMALL, 0.1),
    ]
    folder = write_ensemble(tmp_path / "ensemble", log_mel, members)
    monkeypatch.setenv("MUSICNN", str(tmp_path / "nowhere"))
    musicnn._network.cache_clear()  # what another test has read
    ensemble = load_ensemble(folder, partly=True)
    assert "a smaller model is used: the variable MUSICNN names" in ensemble.left_out
    assert [member.weight for member in ensemble.info.members] == pytest.approx([0.75, 0.25])
    soundfile.write(tmp_path / "song.wav", np.random.default_rng(0).normal(size=44_100), 22_050)
    assert sum(ensemble.predict(tmp_path / "song.wav").values()) == pytest.approx(1)
    with pytest.raises(RequestError, match="MUSICNN names"):  # where all members are asked for
        load_ensemble(folder).predict(tmp_path / "song.wav")
    # and nothing is left out where nothing would be left
    alone = write_ensemble(
        tmp_path / "alone", log_mel, [dataclasses.replace(members[0], weight=1.0)]
    )
    with pytest.raises(RequestError, match="MUSICNN names"):
        load_ensemble(alone, partly=True).predict(tmp_path / "song.wav")


def test_members_of_arrays_that_no_audio_makes_stand_alone(tmp_path: Path) -> None:
    arrays = FeatureSet({"array": Array(bands=8, frames=10, value_type="uint8")})
    audio = FeatureSet({"log_mel": LogMel(n_mels=8)})
    members = [MadeMember("gru", SMALL, 0.5, features=one) for one in (arrays, audio)]
    folder = write_ensemble(tmp_path / "ensemble", audio, members)
    with pytest.raises(RequestError, match="must all read the same arrays, or all take audio"):
        load_ensemble(folder)


def test_songs_predicted_together_get_what_each_gets_alone(tmp_path: Path) -> None:
    log_mel = LogMel(n_mels=8, chunk_samples=11 * 256)
    features = FeatureSet({"log_mel": log_mel, "chroma": chroma.Feature(log_mel=log_mel)})
    members = [
        MadeMember("gru", {"hidden": 4, "features": "log_mel"}, 0.5, temperature=2.0),
        MadeMember("cnn", {"blocks": 1, "channels": 2, "features": "all"}, 0.5, temperature=0.5),
    ]
    model = load_ensemble(write_ensemble(tmp_path / "ensemble", features, members, 1.5))
    random = np.random.default_rng(0)
    columns = [
        {
            "log_mel": random.normal(-30, 10, (chunks, 8, 12)).astype(np.float32),
            "chroma": random.uniform(0, 1, (chunks, 12, 12)).astype(np.float32),
        }
        for chunks in (1, 4, 2)
    ]
    songs = [as_song(one) for one in columns]
    together = model.predict_songs(songs)
    assert [prediction.chunks.shape for prediction in together] == [(1, 3), (4, 3), (2, 3)]
    for song, prediction in zip(songs, together, strict=True):
        alone = model.predict_song(song)
        assert prediction.song == pytest.approx(alone.song, abs=1e-6)
        assert prediction.chunks == pytest.approx(alone.chunks, abs=1e-6)
    assert not np.allclose(together[0].song, together[2].song, atol=1e-6)


def test_members_that_share_descriptions_compute_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = make_chunks()
    members = [
        (trained(tmp_path / f"d{i}", "discriminant", chunks, shrinkage=share), 0.25)
        for i, share in enumerate((0.1, 0.3, 0.5))
    ]
    members.append((trained(tmp_path / "s", "statistics", chunks), 0.25))
    ensemble = load_ensemble(ensemble_of(tmp_path / "ensemble", members, chunks))
    alone = [_probs(folder, chunks) for folder, _ in members]
    batches: list[int] = []
    describe = discriminant.Model.describe

    def counted(x: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        return describe(x)

    monkeypatch.setattr(discriminant.Model, "describe", staticmethod(counted))
    _, by_chunk = predicted(ensemble, chunks)
    assert batches == [54]  # all chunks, once for the three members
    assert by_chunk == pytest.approx(sum(alone) / 4, abs=1e-6)


# --- the folder ---


def test_the_folder_is_all_that_is_needed(made: Path, saved: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "model"
    moved.parent.mkdir()
    saved.rename(moved)
    assert sorted(path.name for path in moved.iterdir()) == ["ensemble.json", "members"]
    assert len(load_ensemble(moved).checkpoints) == 2


def test_a_family_and_a_feature_of_ones_own_are_kept_and_run_only_where_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_versions", "_current"):
        monkeypatch.setattr(_own, name, {})
    family, encoder = register_own_family(tmp_path, monkeypatch), write_encoder(tmp_path)
    reads = features.audio_features(DatasetConfig(features=("log_mel", str(encoder))))
    own = {"features": "log_mel"}
    members = [MadeMember("my_family", own, 0.5), MadeMember("linear", {}, 0.5)]
    folder = write_ensemble(tmp_path / "ensemble", reads, members)
    code = folder / "code"
    assert (code / "families/my_family.py").read_text() == family.read_text()
    assert (code / "features/my_encoder.py").read_text() == encoder.read_text()
    load_ensemble(folder)

    monkeypatch.setattr(models, "_own", {})
    hint = f"; {code} has a copy: read what it does first"
    with pytest.raises(RequestError, match="add --family FILE, the my_family.py that it") as error:
        load_ensemble(folder)
    assert str(error.value).endswith(hint)
    models.register_family(code / "families/my_family.py")
    _own._versions.clear()
    _own._current.clear()
    with pytest.raises(RequestError, match="add --features FILE, the my_encoder.py") as error:
        load_ensemble(folder)
    assert str(error.value).endswith(hint)
    features.register_feature(code / "features/my_encoder.py")
    assert list(load_ensemble(folder).inputs[0].columns) == ["log_mel", "my_encoder"]


def test_saving_replaces_an_earlier_ensemble_but_nothing_else(
    made: Path, saved: Path, tmp_path: Path, chunks: Chunks
) -> None:
    only = [(made / "gru", 1.0)]
    ensemble_of(saved, only, chunks)
    assert [path.name for path in (saved / "members").iterdir()] == ["gru"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").touch()
    with pytest.raises(RequestError, match="holds other things"):
        ensemble_of(other, only, chunks)
    assert (other / "cat.jpg").exists()


def test_a_save_that_fails_leaves_the_earlier_ensemble(
    made: Path, saved: Path, chunks: Chunks
) -> None:
    with pytest.raises(FileNotFoundError):
        ensemble_of(saved, [(made / "gru", 0.5), (made / "nowhere", 0.5)], chunks)
    assert len(load_ensemble(saved).checkpoints) == 2
    assert [path.name for path in saved.parent.iterdir()] == ["ensemble"]


def test_half_the_size_gives_the_same_predictions(
    made: Path, tmp_path: Path, chunks: Chunks
) -> None:
    members = [(made / name, weight) for name, weight in WEIGHTS.items()]
    ensemble_of(tmp_path / "half", members, chunks, half=True)

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    assert size(tmp_path / "half") < 0.65 * size(made / "ensemble")  # headers, statistics stay
    exact, small = (load_ensemble(path) for path in (made / "ensemble", tmp_path / "half"))
    expected = predicted(exact, chunks)[1]
    assert predicted(small, chunks)[1] == pytest.approx(expected, abs=2e-3)


# --- damage ---


@pytest.mark.parametrize("name", ["../../gru", "/etc", "..", "", ".", "a/b"])
def test_a_member_outside_of_the_folder_is_refused(saved: Path, name: str) -> None:
    _edit(saved, members=[{"name": name, "weight": 1.0}])
    with pytest.raises(RequestError, match=r"members\.0\.name: .*must be the name of a folder"):
        load_ensemble(saved)


def test_an_ensemble_without_members_is_refused(saved: Path) -> None:
    _edit(saved, members=[])
    with pytest.raises(RequestError, match=r"at least one, but they are \[\]"):
        load_ensemble(saved)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [float("nan"), 1.0]])
def test_weights_that_do_not_sum_to_1_are_refused(saved: Path, weights: list[float]) -> None:
    names = ["gru", "cnn"]
    _edit(saved, members=[{"name": n, "weight": w} for n, w in zip(names, weights, strict=True)])
    with pytest.raises(RequestError, match=r"weights must sum to 1|members\.\d\.weight: Input"):
        load_ensemble(saved)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("of_member", [True, False])
def test_temperatures_that_are_none_are_refused(
    saved: Path, temperature: float, of_member: bool
) -> None:
    if of_member:
        _edit(saved, members=[{"name": "gru", "weight": 1.0, "temperature": temperature}])
    else:
        _edit(saved, temperature=temperature)
    with pytest.raises(RequestError, match="temperature: Input should be .*: give a search"):
        load_ensemble(saved)


def test_members_of_different_genres_are_refused(saved: Path) -> None:
    path = saved / "members" / "cnn" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"genres": ["a", "b", "c"]}))
    with pytest.raises(RequestError, match="all members need the ensemble's genres, but those of "):
        load_ensemble(saved)


def test_a_member_that_is_missing_is_refused(saved: Path) -> None:
    shutil.rmtree(saved / "members" / "cnn")
    with pytest.raises(RequestError, match="members/cnn is no checkpoint: config.json is missing"):
        load_ensemble(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no ensemble: ensemble.json"),
        ("[]", "ensemble.json holds no object"),
        ("{}", "ensemble.json is damaged, or it was written by another version"),
        ('{"members": 3}', "ensemble.json is damaged, or it was written by another version"),
    ],
)
def test_a_damaged_file_is_refused_with_the_remedy(saved: Path, content: str, message: str) -> None:
    (saved / "ensemble.json").write_text(content)
    with pytest.raises(RequestError, match=f"{message}.* give a search, one of its trials"):
        load_ensemble(saved)


def test_a_folder_without_an_ensemble_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no ensemble: ensemble.json is missing; give a search"):
        load_ensemble(tmp_path)
