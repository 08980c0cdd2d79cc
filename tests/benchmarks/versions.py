"""How an ensemble does on other versions of the songs that it was trained on, out of fold.

    python tests/benchmarks/versions.py ENSEMBLE --searches results/a results/b \\
        --tracks tracks.csv [--ending .excerpt] [--out predictions.parquet]

ENSEMBLE was made by `mgc_ray.ensemble` of these searches, which were refitted on folds. Each song
of the table is predicted only by the members that were not trained on its artist: those of the fold
that its track_id was left out of. So the figures are of artists that no model behind a prediction
has heard; the weights and temperatures of the ensemble were chosen on such predictions, so they are
a little too high. Which track of a search a song is, its track_id says (without `--ending`).

Versions: the file as it is; MP3 at 128 and 64 kbit/s; low-passed to 8 kHz; 6 dB quieter; resampled
to 16,000 and 44,100 Hz; the 3 s in its middle. Printed of each: accuracy, balanced accuracy,
macro-F1, with intervals (bootstrap over artists), and the paired difference from the first.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr

from mgc_ray.data.chunks import open_chunks
from mgc_ray.data.split.groups import assign_groups
from mgc_ray.data.tracks import read_tracks
from mgc_ray.ensembling.saved import Ensemble, load_ensemble
from mgc_ray.evaluation.intervals import RESAMPLES, Evaluated, paired_difference
from mgc_ray.evaluation.metrics import confusion_matrix, precision_recall_f1
from mgc_ray.results import load_search

Sound = tuple[np.ndarray, int]  # samples, Hz


def _low_passed(sound: Sound) -> Sound:
    x, rate = sound
    return soxr.resample(soxr.resample(x, rate, 16_000), 16_000, rate), rate


def _middle(sound: Sound) -> Sound:
    x, rate = sound
    length = 3 * rate
    start = max(0, (len(x) - length) // 2)
    return x[start : start + length], rate


def _resampled(rate: int) -> Callable[[Sound], Sound]:
    return lambda sound: (soxr.resample(sound[0], sound[1], rate), rate)


def _same(sound: Sound) -> Sound:
    return sound


# name, change, bit rate of MP3 in kbit/s (0: WAV)
VERSIONS: list[tuple[str, Callable[[Sound], Sound], int]] = [
    ("as it is", _same, 0),
    ("MP3 of 128 kbit/s", _same, 128),
    ("MP3 of 64 kbit/s", _same, 64),
    ("low-passed to 8 kHz", _low_passed, 0),
    ("6 dB quieter", lambda sound: (sound[0] * 0.5, sound[1]), 0),
    ("at 16,000 Hz", _resampled(16_000), 0),
    ("at 44,100 Hz", _resampled(44_100), 0),
    ("the 3 s in its middle", _middle, 0),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ensemble", type=Path)
    parser.add_argument("--searches", type=Path, nargs="+", required=True)
    parser.add_argument("--tracks", required=True)
    parser.add_argument("--ending", default="", help="of track ids, which is ignored")
    parser.add_argument("--versions", type=int, nargs="+", default=[*range(len(VERSIONS))])
    parser.add_argument("--only", default="", metavar="FAMILY", help="its members alone")
    parser.add_argument("--out", type=Path, help="all predictions, as a table")
    args = parser.parse_args()
    table = read_tracks(args.tracks)
    tracks = assign_groups(table.tracks, {track.path: track.path for track in table.tracks})
    ensemble = load_ensemble(args.ensemble)
    left_out = [
        _tracks_left_out(member.name, args.searches, args.ending)
        for member in ensemble.info.members
    ]
    if args.only:
        families = [checkpoint.config.family for checkpoint in ensemble.checkpoints]
        left_out = [
            one if family == args.only else set()
            for one, family in zip(left_out, families, strict=True)
        ]
    ids = [track.track_id.removesuffix(args.ending) for track in tracks]
    true = np.array([ensemble.genres.index(track.genre) for track in tracks])
    group = np.array([track.group for track in tracks])
    rows, first = [], None
    for number in args.versions:
        name, change, kbits = VERSIONS[number]
        probs = np.full((len(tracks), len(ensemble.genres)), np.nan)
        for i, track in enumerate(tracks):
            own = _members(ensemble, [ids[i] in one for one in left_out])
            with tempfile.TemporaryDirectory() as folder:
                path = track.path
                if number:
                    path = _written(Path(folder), change(_read(track.path)), kbits)
                probs[i] = own.predict_song(own.compute(path)).song
            rows.append([ids[i], track.genre, track.group, name, *map(float, probs[i])])
        first = probs if first is None else first
        print(f"{name}: {_figures(probs, first, true, group)}", flush=True)
    if args.out:
        names = ["track_id", "genre", "group", "version", *(f"prob_{g}" for g in ensemble.genres)]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), args.out)


def _tracks_left_out(member: str, searches: Sequence[Path], ending: str) -> set[str]:
    """Ids of the tracks that a member `SEARCH.TRIAL-foldK` was not trained on."""
    search, _, model = member.rpartition(".") if len(searches) > 1 else ("", "", member)
    trial, _, fold = model.rpartition("-fold")
    folder = next(one for one in searches if one.name == search or len(searches) == 1)
    result = load_search(folder)
    chunks = open_chunks(result.dataset_folder, ("train", "valid"), memory=0)
    with np.load(folder / "refit" / trial / f"fold-{fold}" / "held.npz") as held:
        track = np.unique(chunks.track[held["rows"]])
    return {chunks.tracks[i].track_id.removesuffix(ending) for i in track}


def _members(ensemble: Ensemble, used: Sequence[bool]) -> Ensemble:
    """Those members alone; an error where there is none."""
    kept = [i for i, one in enumerate(used) if one]
    if not kept:
        sys.exit("a song of the table was not left out of any fold: give the tracks of a search")
    info = replace(ensemble.info, members=tuple(ensemble.info.members[i] for i in kept))
    return Ensemble([ensemble.checkpoints[i] for i in kept], info)


def _read(path: str) -> Sound:
    x, rate = soundfile.read(path, dtype="float32")
    return x, rate


def _written(folder: Path, sound: Sound, kbits: int) -> str:
    x, rate = sound
    if not kbits:
        soundfile.write(folder / "song.wav", x, rate, subtype="FLOAT")
        return str(folder / "song.wav")
    most, least = (320, 32) if rate >= 32_000 else (160, 8)
    level = (most - kbits) / (most - least)  # libsndfile's measure of a bit rate
    path = folder / "song.mp3"
    soundfile.write(path, x, rate, bitrate_mode="CONSTANT", compression_level=level)
    return str(path)


def _figures(probs: np.ndarray, first: np.ndarray, true: np.ndarray, group: np.ndarray) -> str:
    predicted, genres = probs.argmax(1), probs.shape[1]
    of_groups = np.stack(
        [
            confusion_matrix(predicted[group == one], true[group == one], genres)
            for one in np.unique(group)
        ]
    )
    drawn = np.random.default_rng(0).multinomial(
        len(of_groups), np.full(len(of_groups), 1 / len(of_groups)), RESAMPLES
    )
    matrices = np.tensordot(drawn, of_groups, 1)  # [resamples, genres, genres]
    words = []
    for name, measure in MEASURES.items():
        low, high = np.percentile([measure(matrix) for matrix in matrices], [2.5, 97.5])
        words.append(f"{name} {measure(of_groups.sum(0)):.1%} ({low:.1%} to {high:.1%})")
    both = [
        Evaluated(np.arange(len(true)), group, true, one.argmax(1), 0.0, len(true))
        for one in (probs, first)
    ]
    paired = paired_difference([both[0]], [both[1]], same_runs=True)
    words.append(f"difference {paired.value:+.1%} ({paired.low:+.1%} to {paired.high:+.1%})")
    return ", ".join(words) + f" of {len(true)} songs"


MEASURES: dict[str, Callable[[np.ndarray], float]] = {  # of a confusion matrix
    "accuracy": lambda matrix: float(np.trace(matrix) / matrix.sum()),
    "balanced": lambda matrix: float(np.nanmean(precision_recall_f1(matrix)[1])),
    "macro-F1": lambda matrix: float(np.nanmean(precision_recall_f1(matrix)[2])),
}


if __name__ == "__main__":
    main()
