"""The songs of a library that are most like one song, by the embeddings in its table.

For a song that the table lists no model is needed, and PyTorch is not imported.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import SimilarConfig
from mgc_ray.data.files import check_output_file
from mgc_ray.data.names import as_text, from_text
from mgc_ray.data.tags import artist_in_tags
from mgc_ray.pipeline.checks import check_given_model
from mgc_ray.pipeline.library_table import EmbeddedSongs, model_key, read_embedded
from mgc_ray.pipeline.playlists import write_similar
from mgc_ray.results import model_folder

_SHOWN = 3


@dataclass(frozen=True)
class SimilarSong:
    """A song of the library; `artist` is from its tags, "" where these give none.

    `similarity`: the cosine of both songs, at most 1; see ensembling/embedding.py.
    """

    rank: int  # from 1
    similarity: float
    path: str  # below the library's folder
    genre: str
    artist: str


@dataclass(frozen=True)
class SimilarSongs:
    """The songs that are most like `song`, the most similar one first."""

    song: str
    songs: tuple[SimilarSong, ...]


def find_similar(config: SimilarConfig) -> SimilarSongs:
    """The most similar songs of the table, and a playlist of them where that is asked for.

    RequestError for a table without embeddings, for a song that is neither a file nor in the table,
    and for another model than that of the table.
    """
    if config.playlist:
        check_output_file("--playlist", config.playlist, ".m3u8")
    check_given_model(config.model)
    library = read_embedded(config.table)
    music = config.music or Path(library.origin.music)
    row = _row(config, library, music)
    if row is not None and _is_as_it_was(config.song, library, row):
        query = _embedding(library, row)
    else:
        query = _embed(config, library)
    cosines = library.embeddings @ query
    order = [i for i in np.argsort(-cosines, kind="stable").tolist() if library.rows[i] != row]
    paths, songs = [], []
    for rank, i in enumerate(order[: config.count], start=1):
        shown, genre = library.paths[library.rows[i]], library.genres[library.rows[i]]
        paths.append(_on_disk(music, shown))
        artist = artist_in_tags(str(music / paths[-1]))
        songs.append(SimilarSong(rank, min(1.0, float(cosines[i])), shown, genre, artist))
    if config.playlist:
        title = f"Similar to {as_text(Path(config.song).stem)}"
        entries = [(p, one.genre, one.similarity) for p, one in zip(paths, songs, strict=True)]
        write_similar(config.playlist, title, music, entries)
    return SimilarSongs(as_text(config.song), tuple(songs))


def _row(config: SimilarConfig, library: EmbeddedSongs, music: Path) -> int | None:
    """The row of the song; None for a file that the table does not list."""
    numbers = {path: number for number, path in enumerate(library.paths)}
    if not os.path.isfile(config.song):
        if (row := numbers.get(as_text(config.song))) is None:
            like = _like(config.song, library.paths)
            raise RequestError(
                f"SONG must be an audio file or a path that {config.table} lists, but "
                f"{as_text(config.song)} is neither{like}: give another"
            )
        return row
    song = os.path.abspath(config.song)
    real = os.path.join(os.path.realpath(os.path.dirname(song)), os.path.basename(song))
    below = os.path.relpath(song, music), os.path.relpath(real, os.path.realpath(music))
    return next((numbers[as_text(path)] for path in below if as_text(path) in numbers), None)


def _like(song: str, paths: Sequence[str]) -> str:
    """Listed paths that may be meant."""
    text = as_text(song).casefold()
    found = [path for path in paths if text in path.casefold()]
    more = ", ..." if len(found) > _SHOWN else ""
    return f" (it lists {', '.join(found[:_SHOWN])}{more})" if found else ""


def _is_as_it_was(song: str, library: EmbeddedSongs, row: int) -> bool:
    """Whether a listed song, if it is there, is the file that was predicted."""
    if not os.path.isfile(song):
        return True
    status = os.stat(song)
    return library.identities[row] == (status.st_size, status.st_mtime_ns)


def _embedding(library: EmbeddedSongs, row: int) -> np.ndarray:
    if row not in library.rows:
        raise RequestError(
            f"{library.paths[row]} has no embedding, as it could not be read "
            f"({library.reasons[row]}): give another song"
        )
    found: np.ndarray = library.embeddings[library.rows.index(row)]
    return found


def _embed(config: SimilarConfig, library: EmbeddedSongs) -> np.ndarray:
    """The embedding of a file by the ensemble that made the table."""
    model = model_folder(config.model or library.origin.model)
    if not model.is_dir():
        raise RequestError(
            f"{as_text(config.song)} is not in {config.table}, so the ensemble that made the table "
            f"is needed, but it is not in {model} any more: give it by --model"
        )
    # imports PyTorch, which takes seconds
    from mgc_ray.data.audio import UnusableTrackError
    from mgc_ray.ensembling.embedding import VERSION, predict_and_embed
    from mgc_ray.pipeline.songs import load_model

    ensemble = load_model(model)
    if (key := model_key(model, ensemble.info.members, VERSION)) != library.model:
        raise RequestError(
            f"embeddings of different ensembles cannot be compared: {config.table} was made by "
            f"{library.model}, but {model} is {key}: give the ensemble that made it by --model, "
            "or make the table again"
        )
    try:
        song = ensemble.compute(config.song)
    except UnusableTrackError as error:
        raise RequestError(f"{as_text(config.song)}: {error}: give another song") from None
    return predict_and_embed(ensemble, song)[1]


def _on_disk(music: Path, shown: str) -> str:
    """A path below the folder as it is on disk, where bytes need not be UTF-8."""
    original = from_text(shown)
    return original if os.path.exists(music / original) else shown
