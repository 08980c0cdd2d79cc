"""A song's embedding: what its cosine means, whatever the members are."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mgc_ray.data.chunks import Chunks
from mgc_ray.ensembling.embedding import (
    SOUND,
    _HeadInputs,
    embedding,
    embedding_length,
    predict_and_embed,
)
from mgc_ray.ensembling.saved import load_ensemble
from tests.conftest import make_chunks
from tests.ensembling.made_ensembles import as_song, ensemble_of, trained


def test_the_cosine_is_the_mean_of_that_of_genres_and_that_of_sound() -> None:
    first, second = np.array([0.64, 0.36, 0.0]), np.array([0.0, 0.36, 0.64])
    same = [np.array([3.0, 4.0]), np.array([1.0, 0.0, 0.0])]
    turned = [np.array([-4.0, 3.0]), np.array([2.0, 0.0, 0.0])]  # the first one by 90 degrees
    a, b = (embedding(probs, same, [0.25, 0.75]) for probs in (first, second))
    assert a.shape == (3 + SOUND,)
    assert a.dtype == np.float32
    assert a @ a == pytest.approx(1)
    # genres: sqrt(0.64 x 0) + 0.36 + sqrt(0 x 0.64) = 0.36; sound: 1
    assert a @ b == pytest.approx((0.36 + 1) / 2, abs=1e-6)
    # sound: 0.25 x 0 + 0.75 x 1
    c = embedding(first, turned, [0.25, 0.75])
    assert a @ c == pytest.approx((1 + 0.75) / 2, abs=0.05)


def test_members_of_one_width_are_kept_apart() -> None:
    """Units of one network mean nothing in another."""
    probs, one, other = np.array([1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    a = embedding(probs, [one, other], [0.5, 0.5])
    b = embedding(probs, [other, one], [0.5, 0.5])
    assert a @ b == pytest.approx(0.5, abs=0.05)  # sound: 0


def test_random_numbers_are_always_the_same() -> None:
    """Else songs that were embedded by another version of NumPy could not be compared."""
    values = embedding(np.array([1.0]), [np.array([1.0, 0.0])], [1.0])
    # the first numbers of MT19937 with seed 0 by the polar method: 1.764052, 0.400157, 0.978738
    assert values[1:4] / values[1] == pytest.approx([1, 0.400157 / 1.764052, 0.978738 / 1.764052])


def test_a_song_without_any_activation_has_an_embedding_of_its_genres() -> None:
    values = embedding(np.array([0.5, 0.5]), [np.zeros(4)], [1.0])
    assert values[:2] == pytest.approx([0.5, 0.5])
    assert not values[2:].any()


def test_one_value_that_never_varied_in_training_does_not_drown_all_others() -> None:
    network = nn.Module()
    network.head = nn.Linear(3, 2)
    with ExitStack() as hooks:
        inputs = _HeadInputs(network, hooks)
        network.head(torch.tensor([[1.0, 2.0, -5000.0], [0.5, 10.5, 3.0]]))
        network.head(torch.tensor([[0.25, 0.0, 0.0]]))
    assert inputs.sum == pytest.approx([1.75, 12.0, -7.0])


WEIGHTS = {"gru": 0.6, "discriminant": 0.3, "statistics": 0.1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Chunks]:
    """An ensemble of a network, a solved family and one that describes before it classifies."""
    folder, chunks = tmp_path_factory.mktemp("made"), make_chunks()
    members = [(trained(folder / name, name, chunks), weight) for name, weight in WEIGHTS.items()]
    ensemble_of(folder / "ensemble", members, chunks)
    return folder / "ensemble", chunks


def test_an_ensemble_embeds_what_its_members_embed(made: tuple[Path, Chunks]) -> None:
    folder, chunks = made
    ensemble = load_ensemble(folder)
    array = chunks.features["array"][:3]
    song = as_song({"array": array})
    prediction, values = predict_and_embed(ensemble, song)
    assert (prediction.song == ensemble.predict_song(song).song).all()
    assert len(values) == embedding_length(ensemble) == 3 + SOUND
    vectors, weights = [], []
    for checkpoint, member in zip(ensemble.checkpoints, ensemble.info.members, strict=True):
        classifier = checkpoint.classifier
        with torch.inference_mode():
            x = classifier.standardise({"array": torch.from_numpy(array)})
            vectors.append(classifier.network.embed(x).mean(0).numpy())  # type: ignore[operator]
        weights.append(member.weight)
    assert values == pytest.approx(embedding(prediction.song, vectors, weights), abs=1e-5)


def test_nothing_is_left_in_a_network_that_has_embedded_a_song(
    made: tuple[Path, Chunks],
) -> None:
    folder, chunks = made
    ensemble = load_ensemble(folder)
    song = as_song({"array": chunks.features["array"][:3]})
    first = predict_and_embed(ensemble, song)[1]
    assert all(not one.classifier.network.head._forward_pre_hooks for one in ensemble.checkpoints)
    assert (predict_and_embed(ensemble, song)[1] == first).all()


def test_a_song_of_many_chunks_has_the_mean_of_all(made: tuple[Path, Chunks]) -> None:
    """More than are predicted at a time."""
    folder, chunks = made
    ensemble = load_ensemble(folder)
    song = chunks.features["array"][:3]
    once, repeated = (as_song({"array": np.tile(song, (times, 1, 1))}) for times in (1, 50))
    values = [predict_and_embed(ensemble, one)[1] for one in (once, repeated)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    first_chunk = predict_and_embed(ensemble, as_song({"array": song[:1]}))[1]
    assert values[0] @ first_chunk < 0.999


def test_songs_of_one_genre_are_nearer(made: tuple[Path, Chunks]) -> None:
    folder, chunks = made
    ensemble = load_ensemble(folder)
    songs = np.stack(
        [
            predict_and_embed(
                ensemble, as_song({"array": chunks.features["array"][chunks.track == k]})
            )[1]
            for k in range(len(chunks.tracks))
        ]
    )
    cosines = songs @ songs.T
    np.fill_diagonal(cosines, -1)
    assert (chunks.track_genre[cosines.argmax(1)] == chunks.track_genre).mean() > 0.9


def test_weights_decide_how_much_a_member_counts() -> None:
    probs, one, other = np.array([1.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    a = embedding(probs, [one, one], [0.9, 0.1])
    first_differs = embedding(probs, [other, one], [0.9, 0.1])
    second_differs = embedding(probs, [one, other], [0.9, 0.1])
    assert a @ first_differs == pytest.approx((1 + 0.1) / 2, abs=0.05)
    assert a @ second_differs == pytest.approx((1 + 0.9) / 2, abs=0.05)
