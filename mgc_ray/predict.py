"""Genres of any audio files, with probabilities, from a saved ensemble.

    mgc-ray predict song.mp3
    mgc-ray predict --model results/gru-001/ensemble album/*
    mgc-ray predict tracks.csv
    mgc-ray predict MUSIC --out genres.parquet --playlists playlists
    mgc-ray predict MUSIC --out songs.parquet --embeddings

Without --model: by the ensemble that comes with the program, for GTZAN's ten genres. Files, all
files of folders, and those that tables list are predicted in this process, without Ray; a folder
with --out on all cores, or on a cluster. A prediction for a song shorter than half of the model's
chunks (half of 3 s, for the included model) is marked as short: no model was trained on such
songs. Bytes of names that are not UTF-8 are shown as \\xNN; in lines of text, but not in JSON,
control characters are escaped as well.

The table of --out has one row per file: path (below the folder), genre, probability, prob_GENRE for
each genre, short, and the reason where a file could not be read. When run again, it predicts what
is new or has changed, and tries again what could not be read; the exit status is 1 while any file
cannot be read.

With --embeddings it also has the column embedding, by which `similar` finds songs that sound alike:
a fixed-length list of float32, of length 1, so that the dot product of two songs is their cosine.
Its first values, one per genre, are the square roots of the probabilities times 0.71. The other 512
are what the last layers of the ensemble's members are given, the mean over the song's chunks: each
member's scaled to length 1 and multiplied by a fixed random matrix, then their sum with the square
roots of the members' weights, scaled to 0.71. So a cosine is the mean of two similarities, of the
genres and of the sound. Embeddings of different ensembles are not comparable; the column model
identifies the ensemble.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.config import PredictConfig
from mgc_ray.data.names import as_text, is_utf8, one_line
from mgc_ray.pipeline.checks import check_given_model, check_library, register_files
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console, print_json, print_line, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop

_SHOWN = 3
_REASONS_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, predict; status 1 where a file could not be read."""
    parsed = parse(
        PredictConfig,
        argv,
        "predict",
        "Genres of audio files (WAV, AU, FLAC, MP3, OGG, of any length), or of .npy spectrograms "
        "where the model was trained on such; or, with --out, of a whole library.",
        json_help="Print one line: a list of {file, genres, short} or {file, error}.",
    )
    config = parsed.config
    register_files(config.family, config.feature_files)
    if config.out:
        if len(config.files) != 1:
            raise RequestError(f"--out is for one folder, but {len(config.files)} are given")
        folder = os.path.abspath(config.files[0])
        if not is_utf8(folder):  # Ray could not start
            raise RequestError(
                f"with --out, the folder must have a UTF-8 name, but it is {as_text(folder)}: "
                "rename it"
            )
        return _library(config, parsed.as_json)
    for name in ("playlists", "embeddings", "address"):
        if getattr(config, name):
            raise RequestError(f"--{name} is for a whole library: give one folder and --out TABLE")
    return _files(config, parsed.as_json)


def _files(config: PredictConfig, as_json: bool) -> int:
    check_given_model(config.model)
    from mgc_ray.data.audio import UnusableTrackError
    from mgc_ray.pipeline.songs import find_songs, load_model

    songs = find_songs(config.files, config.path_column)
    # imports PyTorch, which takes seconds: missing files alone do not need it
    ensemble = (
        load_model(config.model) if any(os.path.exists(file) for file, _ in songs.files) else None
    )
    predictions: list[Params] = []
    unread = 0
    for file, reason in songs.files:
        try:
            if reason or not ensemble:
                raise UnusableTrackError(reason or "no such file")
            song = ensemble.compute(file)
        except UnusableTrackError as error:
            unread += 1
            predictions.append({"file": file, "error": str(error)})
            console.print(one_line(f"{file}: error: {error}"), style="red", soft_wrap=True)
            continue
        genres = ensemble.by_genre(ensemble.predict_song(song).song)
        predictions.append({"file": file, "genres": genres, "short": song.too_short or None})
        if not as_json:
            best = list(genres.items())[:_SHOWN]
            short = f" ({song.too_short})" if song.too_short else ""
            shares = ", ".join(f"{name} {share:.1%}" for name, share in best)
            print_line(f"{file}: {shares}{short}")
    for file, reason in songs.left_out:
        predictions.append({"file": file, "error": reason})
        console.print(one_line(f"{file}: left out: {reason}"), soft_wrap=True)
    if as_json:
        print_json(predictions)
    return 1 if unread else 0


def _library(config: PredictConfig, as_json: bool) -> int:
    assert config.out
    check_library(
        Path(config.files[0]), config.out, config.playlists, config.address, config.embeddings
    )
    check_given_model(config.model)
    from mgc_ray.ensembling.saved import shipped_model
    from mgc_ray.pipeline.library import predict_library

    started = time.monotonic()
    on_stop(lambda: ": the same command again continues")
    library = predict_library(
        Path(config.files[0]),
        config.out,
        config.model or shipped_model(),
        config.address,
        config.playlists,
        config.embeddings,
    )
    for path, reason in library.unread[:_REASONS_SHOWN]:
        console.print(one_line(f"{path}: {reason}"), style="red", soft_wrap=True)
    where = (
        f" (see the column reason of {config.out})" if library.unread or library.left_out else ""
    )
    console.print(one_line(f"{library}{where}, in {time.monotonic() - started:.0f} s"))
    if as_json:
        print_json(
            {"files": library.files, "known": library.known, "genres": library.genres}
            | {"unread": len(library.unread), "left_out": len(library.left_out)}
            | {"no_audio": library.no_audio, "out": str(config.out)}
        )
    return 1 if library.unread else 0


if __name__ == "__main__":
    run("mgc-ray predict", main)
