"""The genres of a whole music library, on all cores or a cluster, going on where it stopped.

What has been predicted lies in OUT.parts until the end, a file for each few hundred songs, and then
in OUT. A file is known by its path, size and time of change: only what is new or has changed since
is predicted again, also by a later run over the same OUT.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.files import delete_half_written, only_one, written_whole
from mgc_ray.data.spectrogram import Precomputed
from mgc_ray.ensembling.artefact import Ensemble, load_ensemble
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress

# what libsndfile reads; or precomputed spectrograms, for models of such alone
AUDIO = (
    *(".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64"),
    *(".wav", ".wave"),
)
ARRAYS = (".npy",)
OWN_COLUMNS = {
    "path": pa.string(),  # below the folder; bytes that are no UTF-8 as \xNN
    "genre": pa.string(),
    "probability": pa.float64(),
    "reason": pa.string(),  # why there is no genre
    "size": pa.int64(),  # bytes
    "modified_ns": pa.int64(),
    "model": pa.string(),  # a hash
}
_ROWS_A_PART = 256
_FILES_PER_TASK = (4, 64)


class File(NamedTuple):
    """One that may be a song: `shown` is its path below the folder as text that a table can have.

    `size` and `modified_ns` are -1 where it cannot be looked at.
    """

    path: str
    shown: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Library:
    """What came out: songs a genre, and (path, reason) of what could not be read.

    `known`: how many files had been predicted before, and were not again.
    """

    files: int
    known: int
    genres: dict[str, int]
    unread: list[tuple[str, str]]


def predict_library(
    folder: Path,
    out: Path,
    model: str | Path,
    address: str | None = None,
    playlists: Path | None = None,
) -> Library:
    """Predict every audio file below a folder, write a row each into `out` (.parquet or .csv).

    Columns: OWN_COLUMNS, and `prob_GENRE` of each genre. `playlists`: a folder for a playlist a
    genre. Raises RequestError for a folder without such files, and for an `out` that is of
    something else.
    """
    ensemble = load_ensemble(model)
    _check_place(folder, out)
    arrays = isinstance(ensemble.features, Precomputed) and ensemble.features.recipe is None
    endings = ARRAYS if arrays else AUDIO
    files = list(_files(folder, endings))
    if not files:
        raise RequestError(
            f"{folder} has no file ({', '.join(endings)}) at any depth: name another"
        )
    key, schema = _model_key(Path(model)), _schema(ensemble)
    earlier = _earlier(out, schema)
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(exist_ok=True)
    with only_one(parts, lambda holder: _refuse_second(out, holder)):
        delete_half_written(parts)
        known = _still_true([earlier, *_read_parts(parts, schema)], files, key)
        known = known.filter(pc.is_valid(known["genre"]))  # what could not be read is tried again
        there = set(known["path"].to_pylist())
        missing = [file for file in files if file.shown not in there]
        if missing:
            _predict(folder, missing, parts, model=ensemble, key=key, address=address)
        new = _still_true([schema.empty_table(), *_read_parts(parts, schema)[::-1]], missing, key)
        table = pa.concat_tables([known, new]).sort_by("path")
        _write(out, table)
    shutil.rmtree(parts)
    if playlists:
        write_playlists(playlists, folder, table, {file.shown: file.path for file in files})
    genres = Counter(genre for genre in table["genre"].to_pylist() if genre)
    reasons = zip(table["path"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return Library(
        files=len(table),
        known=len(known),
        genres=dict(genres.most_common()),
        unread=[(path, reason) for path, reason in reasons if reason],
    )


def write_playlists(place: Path, folder: Path, table: pa.Table, paths: dict[str, str]) -> None:
    """An M3U playlist (UTF-8) a genre in the folder `place`, surest songs first.

    `paths`: what the table's paths are on disk. A name with a line break in it, which no playlist
    can have, is left out.
    """
    place.mkdir(parents=True, exist_ok=True)
    songs: dict[str, list[tuple[float, str]]] = {}
    left_out = 0
    for shown, genre, sure in zip(
        *(table[name].to_pylist() for name in ("path", "genre", "probability")), strict=True
    ):
        path = paths[shown]
        if genre and set(path) & {"\n", "\r"}:
            left_out += 1
        elif genre:
            songs.setdefault(genre, []).append((-sure, path))
    if left_out:
        console.print(f"in no playlist, as a line breaks in their names: {left_out}", markup=False)
    for genre, of_genre in songs.items():
        lines = ["#EXTM3U", f"#PLAYLIST:{genre}"]
        for sure, path in sorted(of_genre):
            lines += [f"#EXTINF:-1,{Path(path).stem} ({-sure:.0%})"]
            lines += [Path(os.path.relpath(folder / path, place)).as_posix()]
        name = genre.replace("/", "-").replace("\\", "-").replace("\0", "")
        with written_whole(place / f"{name}.m3u8") as temporary:
            temporary.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def _check_place(folder: Path, out: Path) -> None:
    if out.suffix.lower() not in (".parquet", ".csv"):
        raise RequestError(f"--out must end in .parquet or .csv, but it is {out}")
    if not folder.is_dir():
        raise RequestError(f"{folder} is no folder: with --out, name one folder with music in it")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise RequestError(f"--out {out} must be a file in a folder that exists: name another")


def _files(folder: Path, endings: Sequence[str]) -> Iterator[File]:
    """All files with these endings, sorted by folder and name.

    Hidden files and folders are left out; links to folders are not followed, so circles end.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in endings:
                continue
            path = os.path.relpath(os.path.join(place, name), folder)
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            try:
                status = os.stat(os.path.join(place, name))
                yield File(path, shown, status.st_size, status.st_mtime_ns)
            except OSError:  # a link to nowhere: to be told as any other that cannot be read
                yield File(path, shown, -1, -1)


def _model_key(model: Path) -> str:
    """Changes with all that decides a prediction."""
    digest = hashlib.sha256()
    for path in sorted(model.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _schema(ensemble: Ensemble) -> pa.Schema:
    probs = [(f"prob_{genre}", pa.float32()) for genre in ensemble.genres]
    return pa.schema([*OWN_COLUMNS.items(), *probs])


def _refuse_second(out: Path, holder: str) -> None:
    raise RequestError(f"{out} is being written by {holder}: wait for it, or take another --out")


def _earlier(out: Path, schema: pa.Schema) -> pa.Table:
    """The table of an earlier run, empty where it was of other genres.

    RequestError where `out` is something else, which must not be written over.
    """
    if not out.exists():
        return schema.empty_table()
    try:
        if out.suffix.lower() == ".parquet":
            table = pq.read_table(out)
        else:
            options = pa.csv.ConvertOptions(column_types=schema, strings_can_be_null=True)
            table = pa.csv.read_csv(out, convert_options=options)
        if set(OWN_COLUMNS) <= set(table.column_names):
            same = table.column_names == schema.names
            return table.cast(schema) if same else schema.empty_table()
    except (OSError, pa.ArrowException):
        pass
    raise RequestError(
        f"--out {out} is there already, and is no table of genres that this program wrote: name "
        "another, or delete it"
    )


def _read_parts(parts: Path, schema: pa.Schema) -> list[pa.Table]:
    """Parts of an earlier run with a model of other genres are no use, and are deleted."""
    tables = []
    for path in sorted(parts.glob("*.parquet")):
        table = pq.read_table(path)
        if table.schema.equals(schema):
            tables.append(table)
        else:
            path.unlink()
    return tables


def _still_true(tables: Sequence[pa.Table], files: Sequence[File], key: str) -> pa.Table:
    """The rows that this model gave of files as they are now, the first of each."""
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
    model: Ensemble,
    key: str,
    address: str | None,
) -> None:
    """Predict files on all CPUs; their rows go into parts as they come."""
    from mgc_ray.tuning.cluster import connected, nodes_without
    from mgc_ray.tuning.parallel import Shared, parallel_map

    root, schema = os.path.abspath(folder), _schema(model)
    with connected(address), progress("predicting", len(files), "files") as advance:
        if blind := nodes_without(root):
            raise RequestError(
                f"all nodes of the cluster must see the library, but {blind[0]} does not see "
                f"{root}: put it on a path that all nodes share"
            )
        shared = Shared(key, model)  # a node may not see the model's folder

        def predict(file: File) -> dict[str, Any]:
            row: dict[str, Any] = {"path": file.shown, "size": file.size, "model": key}
            row["modified_ns"] = file.modified_ns
            torch.set_num_threads(1)  # there is a process a core
            try:
                genres = shared.get().predict(os.path.join(root, file.path))
            except UnusableTrackError as error:
                return row | {"reason": str(error)}
            best = next(iter(genres))
            probs = {f"prob_{genre}": share for genre, share in genres.items()}
            return row | {"genre": best, "probability": genres[best]} | probs

        rows: list[dict[str, Any]] = []
        number = 1 + max((int(path.stem) for path in parts.glob("*.parquet")), default=-1)
        for done, row in enumerate(parallel_map(files, predict, *_FILES_PER_TASK), start=1):
            rows.append(row)
            if len(rows) == _ROWS_A_PART or done == len(files):
                _write(parts / f"{number:06d}.parquet", pa.Table.from_pylist(rows, schema=schema))
                number, rows = number + 1, []
            advance(done)


def _write(path: Path, table: pa.Table) -> None:
    with written_whole(path) as temporary:
        if path.suffix.lower() == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
