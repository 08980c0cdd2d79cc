"""The genres of a whole music library, on all cores or a cluster; continues where it stopped.

Predictions are written to OUT.parts, one file per few hundred songs, and at the end to OUT. A song
is identified by its path, size and time of change: only what is new or has changed is predicted
again, also by a later run over the same OUT. Rows of folders that are missing or empty at one run,
as of a disk that is not mounted, are kept.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch

from mgc_ray import RequestError
from mgc_ray.config import ClusterConfig
from mgc_ray.data.audio import UnusableTrackError, keep_freed_memory
from mgc_ray.data.features import TOO_SHORT
from mgc_ray.data.files import delete_partial_files, exclusive_lock
from mgc_ray.data.names import as_text, from_text
from mgc_ray.data.untrusted import read_table
from mgc_ray.data.walk import no_audio_in_words, walk
from mgc_ray.ensembling.embedding import VERSION, embedding_length, predict_and_embed
from mgc_ray.ensembling.saved import Ensemble
from mgc_ray.models import own_families, register_sources
from mgc_ray.pipeline.checks import check_library
from mgc_ray.pipeline.library_table import (
    EMBEDDING,
    Origin,
    has_embeddings,
    model_key,
    music_of,
    parts_folder,
    read_earlier,
    table_schema,
    with_columns,
    with_origin,
    write_table,
)
from mgc_ray.pipeline.playlists import write_playlists
from mgc_ray.pipeline.songs import load_model
from mgc_ray.results import model_folder
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console, count_of
from mgc_ray.terminal.progress import progress

_ROWS_PER_PART = 256
_AWAY = "its folder was missing or empty in the last run"
_FILES_PER_TASK = (4, 64)


class File(NamedTuple):
    """A file that may be a song; `shown` is its path below the folder as text for a table.

    `size` and `modified_ns` are -1 where they cannot be read.
    """

    path: str
    shown: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Library:
    """The result: songs per genre, and (path, reason) of what could not be read or is left out.

    `known`: how many files had been predicted before, so that they were not predicted again.
    `short`: how many songs are shorter than half a chunk.
    """

    files: int
    known: int
    genres: dict[str, int]
    unread: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    no_audio: Counter[str]
    short: int = 0

    def __str__(self) -> str:
        """E.g. `23 files (0 predicted before): 12 rock, 9 jazz; 2 could not be read`.

        With what was not read: `; 1 left out; 3 files are no audio (2 .jpg, 1 .txt)`.
        """
        others = no_audio_in_words(self.no_audio)
        counts = ", ".join(f"{count} {genre}" for genre, count in self.genres.items())
        return (
            f"{count_of(self.files, 'file')} ({self.known} predicted before): "
            f"{counts or 'no song'}; "
            + (f"{self.short} {TOO_SHORT}; " if self.short else "")
            + f"{len(self.unread)} could not be read"
            + (f"; {len(self.left_out)} left out" if self.left_out else "")
            + (f"; {others}" if others else "")
        )


def predict_library(
    folder: Path,
    out: Path,
    model: str | Path,
    address: str = "",
    playlists: Path | None = None,
    embeddings: bool = False,
) -> Library:
    """Predict every song below a folder; write one row per file to `out` (.parquet or .csv).

    Columns: see library_table.py. `playlists`: a folder for one playlist per genre. Raises
    RequestError for a folder without such files, and for an `out` that is something else, or whose
    embeddings would be lost.
    """
    check_library(folder, out, playlists, address, embeddings)
    model = model_folder(model)
    ensemble = load_model(model)
    found = walk(folder)
    files = [_file(folder, path) for path in found.files]
    if not files:
        others = no_audio_in_words(found.no_audio) or "it is empty"
        raise RequestError(f"{folder} has no file that may be a song ({others}): give another")
    key = model_key(model, ensemble.info.members, VERSION if embeddings else "")
    schema = table_schema(ensemble.genres, embedding_length(ensemble) if embeddings else 0)
    before = read_earlier(out, schema)
    _check_same_library(out, before, folder, files)
    earlier = with_columns(before, schema)
    if embeddings and out.exists() and not has_embeddings(out):
        console.print(f"{out} has no embeddings yet: its songs are read again", soft_wrap=True)
    parts = parts_folder(out)
    parts.mkdir(exist_ok=True)
    with exclusive_lock(parts, lambda holder: _refuse_second(out, holder)):
        delete_partial_files(parts)
        known = _still_valid([earlier, *_read_parts(parts, schema)], files, key)
        known = known.filter(pc.is_valid(known["genre"]))  # what could not be read is tried again
        known = _with_reason(known, None)  # its folder may have been away
        present = set(known["path"].to_pylist())
        missing = [file for file in files if file.shown not in present]
        if missing:
            _predict(folder, missing, parts, schema, model=ensemble, key=key, address=address)
        new = _still_valid([schema.empty_table(), *_read_parts(parts, schema)[::-1]], missing, key)
        left_out = pa.Table.from_pylist(
            [_row(_file(folder, path), key) | {"reason": why} for path, why in found.left_out],
            schema=schema,
        )
        read = pa.concat_tables([known, new])
        kept = _of_missing_folders(earlier, folder, files, [*found.left_out], key)
        if len(kept):
            console.print(
                f"{out} keeps {count_of(len(kept), 'row')} of songs whose folder is missing or "
                "empty now, as of a disk that is not mounted; if they are gone for good, delete "
                "it and run again",
                soft_wrap=True,
            )
        table = pa.concat_tables([read, left_out, kept]).sort_by("path")
        origin = Origin(*(as_text(os.path.abspath(place)) for place in (folder, model)))
        write_table(out, with_origin(table, origin))
        shutil.rmtree(parts)
    if playlists:
        on_disk = {file.shown: file.path for file in files}
        columns = (read[name].to_pylist() for name in ("path", "genre", "probability"))
        songs = [(on_disk[path], *rest) for path, *rest in zip(*columns, strict=True) if rest[0]]
        write_playlists(playlists, folder, songs, ensemble.genres)
    genres = Counter(genre for genre in read["genre"].to_pylist() if genre)
    return Library(
        files=len(read),
        known=len(known),
        genres=dict(genres.most_common()),
        unread=_reasons(read),
        left_out=_reasons(left_out),
        no_audio=found.no_audio,
        short=len(read) - read["short"].null_count,
    )


def _reasons(table: pa.Table) -> list[tuple[str, str]]:
    rows = zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return sorted((path, reason) for path, reason in rows if reason)


def _file(folder: Path, path: Path) -> File:
    below = os.path.relpath(path, folder)
    shown = as_text(below)
    try:
        status = os.stat(path)
        return File(below, shown, status.st_size, status.st_mtime_ns)
    except OSError:  # a broken link: reported as any other that cannot be read
        return File(below, shown, -1, -1)


def _row(file: File, key: str) -> Params:
    """What is known of a file before it is read."""
    return {
        "path": file.shown,
        "size": file.size,
        "modified_ns": file.modified_ns,
        "model": key,
    }


def _refuse_second(out: Path, holder: str) -> None:
    raise RequestError(f"{out} is being written by {holder}: wait for it, or choose another --out")


def _check_same_library(out: Path, table: pa.Table, folder: Path, files: Sequence[File]) -> None:
    """Refuse to replace the table of another folder of music.

    A library that has moved has songs of the table, unchanged. A table without its origin, a CSV,
    is that of a folder that has half of its songs, changed or not.
    """
    origin = music_of(table)
    if not len(table) or (origin and os.path.realpath(origin) == os.path.realpath(folder)):
        return
    rows = _identities(table)
    same = rows & {(one.shown, one.size, one.modified_ns) for one in files if one.size >= 0}
    names = {path for path, _, _ in rows} & {file.shown for file in files}
    if not same and (origin or 2 * len(names) < len(table)):
        raise RequestError(
            f"--out {out} is the table of {f'the songs in {origin}' if origin else 'other songs'}, "
            f"and none of its songs is in {folder}: give another --out, or delete it"
        )


def _identities(table: pa.Table) -> set[tuple[str, int, int]]:
    columns = (table[name].to_pylist() for name in ("path", "size", "modified_ns"))
    return set(zip(*columns, strict=True))


def _of_missing_folders(
    table: pa.Table, folder: Path, files: Sequence[File], left_out: Sequence[Any], key: str
) -> pa.Table:
    """The rows of songs whose folder is not there, or is empty, and that are nowhere else.

    All embeddings of a table are of one model, the one with this `key`.
    """
    present = {file.shown for file in files} | {
        as_text(os.path.relpath(path, folder)) for path, _ in left_out
    }
    moved = {(os.path.basename(file.shown), file.size, file.modified_ns) for file in files}
    there: dict[str, bool] = {}
    mask = []
    columns = (table[name].to_pylist() for name in ("path", "size", "modified_ns", "model"))
    for path, size, modified, model in zip(*columns, strict=True):
        place, name = os.path.split(path)
        gone = path not in present and (name, size, modified) not in moved
        if gone and place not in there:
            there[place] = _has_entries(os.path.join(folder, from_text(place)))
        usable = model == key or EMBEDDING not in table.column_names
        mask.append(gone and not there[place] and usable)
    return _with_reason(table.filter(pa.array(mask, pa.bool_())), _AWAY)


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def _with_reason(table: pa.Table, reason: str | None) -> pa.Table:
    column = pa.array([reason] * len(table), pa.string())
    return table.set_column(table.column_names.index("reason"), "reason", column)


def _read_parts(parts: Path, schema: pa.Schema) -> list[pa.Table]:
    """Parts of an earlier run with other columns are deleted, and those that are damaged."""
    tables = []
    for path in sorted(parts.glob("*.parquet")):
        try:
            table = read_table(path)
        except (OSError, pa.ArrowException):  # as after a loss of power: its songs are read again
            table = None
        if table is not None and table.schema.equals(schema):
            tables.append(table)
        else:
            path.unlink()
    return tables


def _still_valid(tables: Sequence[pa.Table], files: Sequence[File], key: str) -> pa.Table:
    """The rows that this model predicted for files as they are now, the first of each."""
    present = {(file.shown, file.size, file.modified_ns) for file in files}
    kept = []
    for table in tables:
        columns = [table[name].to_pylist() for name in ("path", "size", "modified_ns", "model")]
        mask = []
        for path, size, modified, model in zip(*columns, strict=True):
            mask.append(model == key and (path, size, modified) in present)
            present.discard((path, size, modified))
        kept.append(table.filter(pa.array(mask, pa.bool_())))
    return pa.concat_tables(kept)


def _predict(
    folder: Path,
    files: Sequence[File],
    parts: Path,
    schema: pa.Schema,
    model: Ensemble,
    key: str,
    address: str,
) -> None:
    """Predict files on all CPUs; their rows of `schema` are written to parts as they come."""
    from mgc_ray.tuning.cluster import nodes_without, ray_cluster
    from mgc_ray.tuning.tasks import Shared, parallel_map

    root, own, embeddings = os.path.abspath(folder), own_families(), EMBEDDING in schema.names
    cluster = ray_cluster(ClusterConfig(address=address))
    with cluster, progress("predicting", len(files), "files") as advance:
        if nodes := nodes_without(root):
            raise RequestError(
                f"all nodes of the cluster must see the library, but {nodes[0]} does not see "
                f"{root}: put it on a path that all nodes share"
            )
        shared = Shared(key, model)  # a node may not see the model's folder

        def predict(file: File) -> Params:
            keep_freed_memory()
            torch.set_num_threads(1)  # there is one process per core
            register_sources(own)
            row = _row(file, key)
            try:
                ensemble = shared.get()
                song = ensemble.compute(os.path.join(root, file.path))
            except UnusableTrackError as error:
                return row | {"reason": str(error)}
            if embeddings:
                prediction, row[EMBEDDING] = predict_and_embed(ensemble, song)
            else:
                prediction = ensemble.predict_song(song)
            genres = ensemble.by_genre(prediction.song)
            best = next(iter(genres))
            row["lost_seconds"] = song.shortest.lost_seconds
            row["short"] = song.too_short or None
            probs = {f"prob_{genre}": share for genre, share in genres.items()}
            return row | {"genre": best, "probability": genres[best]} | probs

        rows: list[Params] = []
        number = 1 + max((int(path.stem) for path in parts.glob("*.parquet")), default=-1)
        for done, row in enumerate(parallel_map(files, predict, *_FILES_PER_TASK), start=1):
            rows.append(row)
            if len(rows) == _ROWS_PER_PART or done == len(files):
                part = pa.Table.from_pylist(rows, schema=schema)
                write_table(parts / f"{number:06d}.parquet", part)
                number, rows = number + 1, []
            advance(done)
