"""How good similar songs are: by the embedding of an ensemble, by its probabilities, by an encoder.

    python -m mgc_ray.preprocess --tracks GTZAN/audio_all.csv --features musicnn \\
        --protocol given --dataset DATASET
    PYTHONPATH=. python tests/benchmarks/similarity.py DATASET --seeds 0 1 2 3 4

For each seed the songs are divided into two halves by artist; one model (the family's defaults, no
search) is trained on each half and embeds the other one, in which each song is then a query for the
ten nearest among all others. Genre: the share of these ten with the query's genre, where no song of
the query's artist counts. Artist: how many of the ten are by the query's artist, as a share of
those that could be (ten or all others by that artist), over queries that have any. Once for all
songs, once for those of at least --chunks chunks. Printed: mean and deviation over seeds, and the
difference of the embedding and the probabilities, with a 95 % interval over artists.

352 songs (352 queries for genre, 249 for artist), five seeds: genre 40.8 % by the embedding and
40.7 by the probabilities, artist 67.9 and 53.9; more in results/README.md, "Similar songs".
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mgc_ray.data.chunks import Chunks, open_chunks
from mgc_ray.data.features import TrackFeatures
from mgc_ray.data.split.folds import draw_folds
from mgc_ray.ensembling.embedding import predict_and_embed
from mgc_ray.ensembling.saved import SongFeatures, load_ensemble
from mgc_ray.evaluation.intervals import bootstrap_interval
from mgc_ray.models import checked_params, family_names
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import train

NEAREST = 10
EMBEDDING, PROBABILITIES = "the embedding: both together", "probabilities alone"
WAYS = {  # of the embedding [songs, genres + sound] and the encoder's outputs [songs, bands]
    EMBEDDING: lambda genres, sound, encoder: np.hstack([genres, sound]),
    PROBABILITIES: lambda genres, sound, encoder: genres**2,
    "square roots of the probabilities": lambda genres, sound, encoder: genres,
    "sound alone": lambda genres, sound, encoder: sound,
    "all that the encoder gives, standardised": lambda genres, sound, encoder: encoder,
}


@dataclass(frozen=True)
class Scores:
    """Of each song [K], NaN for one that is no query."""

    genre: np.ndarray
    artist: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--family", default="linear")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    (family,) = family_names([args.family])
    params = checked_params(family, dict(text.split("=", 1) for text in args.set))
    chunks = open_chunks(args.dataset, ("train", "valid"))
    assert isinstance(chunks, Chunks)
    long = np.bincount(chunks.track) >= args.chunks
    selections = {"all songs": long | True, f"songs of {args.chunks} chunks and more": long}
    found: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for seed in args.seeds:
        half = np.asarray(draw_folds(chunks.tracks, 2, seed))
        scores = [one_half(chunks, half == number, family, params, seed) for number in (0, 1)]
        for name, selection in selections.items():
            for way in WAYS:
                both = [of_half[way](selection) for of_half in scores]
                found[name, way].append(together(*both))
    for name, selection in selections.items():
        print(f"{name}: {selection.sum()} of {len(selection)}, {len(args.seeds)} seeds")
        for way in WAYS:
            print(f"  {way}: {in_words(found[name, way])}")
        for kind in ("genre", "artist"):
            print(
                f"  {kind}, embedding minus probabilities: {difference(found, name, kind, chunks)}"
            )


def one_half(
    chunks: Chunks, held: np.ndarray, family: str, params: Params, seed: int
) -> dict[str, Callable[[np.ndarray], Scores]]:
    """By way, what gives the scores of those of the songs `held` [K] that are selected."""
    parts = replace(chunks, split=np.where(held[chunks.track], "valid", "train"))
    *_, last = train(family, params | {"seed": seed, "patience": 10_000}, parts)
    with tempfile.TemporaryDirectory() as place:
        save_checkpoint(Path(place), last, family, params, chunks.info)
        ensemble = load_ensemble(place)
    embeddings, outputs = [], []
    for number in range(len(chunks.tracks)):
        features = {name: x[chunks.track == number] for name, x in chunks.features.items()}
        song = SongFeatures((TrackFeatures(features, float("nan"), ""),))
        embeddings.append(predict_and_embed(ensemble, song)[1])
        outputs.append(np.concatenate([x.mean((0, 2)) for x in features.values()]))
    genres, sound = np.split(np.stack(embeddings), [len(ensemble.genres)], axis=1)
    encoder = np.stack(outputs)
    mean, deviation = encoder[~held].mean(0), encoder[~held].std(0).clip(1e-3)
    standardised = (encoder - mean) / deviation

    def scorer(way: str) -> Callable[[np.ndarray], Scores]:
        vectors = WAYS[way](genres, sound, standardised)
        return lambda selected: scores_of(vectors, held & selected, chunks)

    return {way: scorer(way) for way in WAYS}


def scores_of(vectors: np.ndarray, songs: np.ndarray, chunks: Chunks) -> Scores:
    """Each of the songs [K] as a query for the others."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    cosines = np.where(songs, unit @ unit.T, -np.inf)
    np.fill_diagonal(cosines, -np.inf)
    scores = Scores(*np.full((2, len(songs)), np.nan))
    for query in np.flatnonzero(songs):
        same = songs & (chunks.track_group == chunks.track_group[query])
        others = np.where(same, -np.inf, cosines[query])
        nearest = np.argsort(-others, kind="stable")[:NEAREST]
        scores.genre[query] = (chunks.track_genre[nearest] == chunks.track_genre[query]).mean()
        if same.sum() > 1:
            nearest = np.argsort(-cosines[query], kind="stable")[:NEAREST]
            scores.artist[query] = same[nearest].sum() / min(NEAREST, same.sum() - 1)
    return scores


def together(first: Scores, second: Scores) -> Scores:
    """The scores of both halves; each song is in one of them."""
    return Scores(
        np.where(np.isnan(first.genre), second.genre, first.genre),
        np.where(np.isnan(first.artist), second.artist, first.artist),
    )


def in_words(scores: list[Scores]) -> str:
    parts = []
    for kind in ("genre", "artist"):
        of_seed = [np.nanmean(getattr(one, kind)) for one in scores]
        parts.append(f"{kind} {np.mean(of_seed):.1%} ± {100 * np.std(of_seed, ddof=1):.1f}")
    return ", ".join(parts)


def difference(
    found: dict[tuple[str, str], list[Scores]], name: str, kind: str, chunks: Chunks
) -> str:
    """Mean over seeds of each song's difference, drawing artists."""
    first, second = (
        np.array([getattr(one, kind) for one in found[name, way]])
        for way in (EMBEDDING, PROBABILITIES)
    )
    each = (first - second).mean(0)
    known = ~np.isnan(each)  # a song is a query in all seeds, or in none
    interval = bootstrap_interval(each[known], chunks.track_group[known])
    return (
        f"{100 * each[known].mean():.1f} points (95 % {100 * interval.low:.1f} to "
        f"{100 * interval.high:.1f}, {known.sum()} queries)"
    )


if __name__ == "__main__":
    main()
