"""Turn a folder or table of music into a dataset, in parallel.

Two passes of Ray Data over the tracks: one decodes each file to see what is usable and what is
identical, so that the split is drawn from whole tracks before any is cut; one writes the chunks.
Between them, with --synthetic, music of the program's own is added to the training part.
With --gpu the second pass makes its spectrograms on the cluster's GPUs (tested on a CPU only).
"""

import hashlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    DatasetInfo,
    dataset_exchange,
    finish,
    read_info,
    shard_path,
    write_skipped,
    write_tracks,
)
from mgc_ray.data.files import LOCK, delete_half_written, only_one
from mgc_ray.data.more_tracks import without_known_recordings
from mgc_ray.data.reach import Reach
from mgc_ray.data.request import (
    CHUNKS_PER_ARRAY,
    DatasetRequest,
    read_more,
    read_table,
)
from mgc_ray.data.spectrogram import Features, Inspection, LogMel, Precomputed, read_array
from mgc_ray.data.split import (
    add_to_train,
    draw_split,
    groups_on_several_sides,
)
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.data.tracks import Skipped, Track, TrackTable
from mgc_ray.jobs.passes import GPU_SHARE, inspect_all, synthesise_all, write_shards
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress

_WITHOUT_DATASET = ("tracks.parquet", "skipped.csv", "synthetic")  # written before dataset.json
_SYNTHETIC_SECONDS = 30.0  # at most: what an excerpt of the generator's songs is made for


def preprocess(
    request: DatasetRequest,
    dataset: str | Path,
    anew: bool = False,
    address: str | None = None,
    gpu: bool = False,
    storage: Storage | None = None,
) -> DatasetInfo:
    """Make the dataset in the folder `dataset`, or as much of it as is missing.

    `storage`: how nodes that do not see this folder, or the tracks, exchange files with this one.
    Raises RequestError, before any work, for a table that cannot be split, for a folder that holds
    a dataset of other settings (unless `anew`, which deletes it), for `gpu` without one, and for a
    cluster of which a node sees neither the folder nor a storage.
    """
    folder = Path(dataset)
    table = read_table(request)
    more = read_more(request, table)
    listing = _listing(table, more)
    _check_folder(folder, table)
    if gpu:
        _check_made_on_gpu(request, table)
    exchange = dataset_exchange(folder, storage)
    if not (folder / "dataset.json").exists() and not anew:
        for name in ("tracks.parquet", "skipped.csv", "dataset.json"):  # what another head began
            exchange.fetch(name)
    info = None
    if (folder / "dataset.json").exists() and not anew:
        info = read_info(folder)
        _check_same_request(folder, info, request, table, more, listing)
        if info.finished and not _missing_shards(folder, info):
            _complete_storage(exchange, info)
            return info
    # imports Ray, which a finished dataset has no need of
    from mgc_ray.tuning.cluster import connected

    with only_one(folder, _wait), connected(address) as resources:
        delete_half_written(folder)
        if (folder / "dataset.json").exists() and not anew:  # made while another had the lock
            info = read_info(folder)
        if gpu and resources.get("GPU", 0) < GPU_SHARE:
            raise RequestError(
                "--gpu needs a GPU in the Ray cluster, but there is none: leave it out, or name a "
                "cluster that has one with --address"
            )
        if anew:
            _delete(folder)
            exchange.delete("chunks")
        tracks = [*table.tracks, *(more.tracks if more else ())]
        reach = _reach(exchange, [track.path for track in tracks], listing)
        if info is None or anew:
            info = _inspect_and_split(folder, request, table, more, listing, reach)
            for name in ("tracks.parquet", "skipped.csv", "dataset.json"):
                exchange.send(name)
        for shard in _missing_shards(folder, info):
            exchange.fetch(shard_path(Path(), shard).as_posix())
        write_shards(exchange, info, _missing_shards(folder, info), gpu, reach, TRACKS_PER_SHARD)
        info = finish(folder, info)
        exchange.send("dataset.json")
        _complete_storage(exchange, info)
        reach.end()
        return info


def _complete_storage(exchange: Exchange, info: DatasetInfo) -> None:
    """Send what the storage lacks of a finished dataset, which may be from before it was named.

    Nodes that stream it, and another head that goes on, have it from there alone.
    """
    small = ("tracks.parquet", "skipped.csv")
    shards = [shard_path(Path(), shard).as_posix() for shard in range(info.shards)]
    lacking = exchange.lacking([*small, *shards])
    for name in lacking:
        exchange.send(name)
    if lacking:  # last: it says that all is there
        exchange.send("dataset.json")


def _reach(exchange: Exchange, paths: Sequence[str], listing: str) -> Reach:
    """How the cluster's nodes reach the tracks; brings them to the storage where they must be.

    Raises RequestError where they, or the dataset's folder, can be reached by this node alone.
    """
    from mgc_ray.tuning.cluster import check_shared, nodes_without

    check_shared(exchange)
    blind = nodes_without(paths[0])
    if not blind:
        return Reach()
    if exchange.storage is None:
        raise RequestError(
            f"all nodes of the cluster must see the tracks, but {blind[0]} does not see "
            f"{paths[0]}: put them on a path that all nodes share, or give --storage"
        )
    reach = Reach(exchange.storage, f"datasets/{exchange.folder.name}/tracks-{listing[:12]}")
    with progress("sending", len(paths), "tracks") as advance:
        reach.send(paths, advance)
    return reach


def _wait(holder: str) -> None:
    console.print(f"{holder} is making this dataset: waiting for it", markup=False)


def _check_made_on_gpu(request: DatasetRequest, table: TrackTable) -> None:
    if table.tracks[0].is_array:
        raise RequestError(
            "--gpu makes spectrograms of audio, but the tracks are .npy spectrograms: leave it out"
        )
    if not isinstance(request.audio_features, LogMel):
        raise RequestError(
            f"--gpu makes log_mel alone, but --features {' '.join(request.features)} is asked for: "
            "leave one of them out"
        )


def _delete(folder: Path) -> None:
    """Delete a dataset, in an order that leaves a dataset or nothing wherever it is interrupted."""
    if (folder / "dataset.json").exists():
        for name in ("chunks", "dataset.json", *_WITHOUT_DATASET):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def _check_folder(folder: Path, table: TrackTable) -> None:
    """Refuse a place for the dataset where it cannot be, or where other things are."""
    if table.source.is_dir() and folder.resolve().is_relative_to(table.source.resolve()):
        raise RequestError(
            f"--dataset {folder} lies in --tracks {table.source}, whose folders are genres: name "
            "one elsewhere"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise RequestError(
            f"--dataset {folder} cannot be made: {error.strerror}; name another folder"
        ) from None
    # a refusal by what the files hold, or an end before dataset.json, leaves these
    others = {name for name in names if not name.endswith(".tmp")} - {LOCK, *_WITHOUT_DATASET}
    if others and "dataset.json" not in names:
        raise RequestError(
            f"--dataset {folder} is a folder with other things in it: name a new or empty one"
        )


def dataset_key(request: DatasetRequest) -> str:
    """Eight characters that change with the table, its files and all settings of the request."""
    # features as what they come to, whatever the order of their names
    others = replace(
        request, tracks="", more_tracks="", without="", features=(), chunk_seconds=None
    )
    table = read_table(request)
    listing = _listing(table, read_more(request, table))
    settings = [listing, others, request.audio_features, request.recipe]
    if request.synthetic:
        from mgc_ray.data.synth import VERSION

        settings.append(VERSION)
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def _listing(table: TrackTable, more: TrackTable | None) -> str:
    """A hash of the rows and of each file's size and time of change; no file is opened."""
    digest = hashlib.sha256()
    for track in [*table.tracks, *(more.tracks if more else ())]:
        try:
            status = os.stat(track.path)
            size, changed = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            size, changed = -1, -1
        digest.update(repr((asdict(track), size, changed)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_same_request(
    folder: Path,
    info: DatasetInfo,
    request: DatasetRequest,
    table: TrackTable,
    more: TrackTable | None,
    listing: str,
) -> None:
    wanted: dict[str, tuple[Any, Any]] = {
        "protocol": (info.protocol, request.protocol),
        "fold": (info.fold, request.fold),
        "seed": (info.seed, request.split_seed),
        "synthetic": (info.synthetic, request.synthetic),
        "tracks added": (bool(info.more_source), bool(more)),  # which these are, the listing tells
    }
    if isinstance(info.features, Precomputed) and table.tracks[0].is_array:
        wanted["chunks-per-track"] = (info.chunks_per_track, _chunks_per_array(request))
        wanted["array-recipe"] = (info.features.recipe, request.recipe)
    elif not isinstance(info.features, Precomputed) and not table.tracks[0].is_array:
        wanted["features"] = (info.features, request.audio_features)
    for name, (there, asked) in wanted.items():
        if there != asked:
            raise RequestError(
                f"{folder} was made with {name} {there}, but {asked} is asked for: name another "
                "--dataset, or add --anew to delete this one and make it again"
            )
    if info.listing != listing:
        raise RequestError(
            f"{folder} was made from {info.source} with {info.tracks} usable tracks, but "
            f"{table.source} has changed since or is another ({len(table.tracks)} rows): name "
            "another --dataset, or add --anew to delete this one and make it again"
        )


def _missing_shards(folder: Path, info: DatasetInfo) -> list[int]:
    return [i for i in range(info.shards) if not shard_path(folder, i).exists()]


def _inspect_and_split(
    folder: Path,
    request: DatasetRequest,
    table: TrackTable,
    more: TrackTable | None,
    listing: str,
    reach: Reach,
) -> DatasetInfo:
    """The first pass; writes all of the dataset but its shards."""
    features = _choose_features(table.tracks, request)
    added = more.tracks if more else []
    found, skipped = inspect_all([*table.tracks, *added], features, reach)
    skipped = [*table.skipped, *(more.skipped if more else ()), *skipped]
    usable = [track for track in table.tracks if track.path in found]
    added = [track for track in added if track.path in found]
    write_skipped(folder, skipped)  # also for the one whose request is refused by what was found
    _tell_skipped(folder, skipped)
    # a genre all of whose tracks were unusable must not vanish without a word
    lost = set(table.genres) - {track.genre for track in usable}
    if lost:
        raise RequestError(
            f"genre {min(lost)!r} has no usable track: the reasons are in "
            f"{folder / 'skipped.csv'}; add tracks, or take the genre out"
        )
    hashes = {path: inspection.content_hash for path, inspection in found.items()}
    tracks, left_out = draw_split(
        usable, hashes, request.protocol, request.split_seed, request.fold
    )
    added, repeated = without_known_recordings(added, hashes, usable)
    write_skipped(folder, [*skipped, *left_out, *repeated])
    _tell_contradictions(tracks, hashes)
    _tell_weak_split(tracks, request)
    genres = tuple(sorted({track.genre for track in tracks} - {""}))
    if request.synthetic:
        seconds = _usual_seconds(found)
        made = synthesise_all(folder, genres, request.synthetic, features, seconds, reach)
        if reach.storage:
            reach.send([track.path for track in made], lambda _: None)
        found |= {track.path: inspection for track, inspection in made.items()}
        added = [*added, *made]
    tracks = add_to_train(tracks, added, request.split_seed)
    info = DatasetInfo(
        features=features,
        genres=genres,
        protocol=request.protocol,
        seed=request.split_seed,
        source=str(table.source),
        listing=listing,
        shards=-(-len(tracks) // TRACKS_PER_SHARD),
        tracks=len(tracks),
        fold=request.fold,
        chunks_per_track=_chunks_per_array(request),
        synthetic=request.synthetic,
        more_source=str(more.source) if more else "",
    )
    write_tracks(folder, tracks, [found[track.path] for track in tracks])
    info.write(folder)
    return info


def _chunks_per_array(request: DatasetRequest) -> int:
    return request.chunks_per_track or CHUNKS_PER_ARRAY


def _choose_features(tracks: Sequence[Track], request: DatasetRequest) -> Features:
    """What is asked for of audio; for arrays, pieces of the most usual size among the readable."""
    if not tracks[0].is_array:
        return request.audio_features
    shapes: Counter[tuple[int, int]] = Counter()
    types = set()
    for track in tracks:
        try:
            array = read_array(track.path)
        except UnusableTrackError:
            continue
        shapes[array.shape] += 1
        types.add(array.dtype)
    if not shapes:
        raise RequestError("none of the table's arrays can be read: expected .npy [bands, frames]")
    bands, frames = shapes.most_common(1)[0][0]
    if request.chunks_per_track and request.chunks_per_track > frames:
        raise RequestError(
            f"--chunks-per-track must be at most the frames of most arrays, but it is "
            f"{request.chunks_per_track} and they have {frames}: name fewer"
        )
    value_type = "uint8" if types == {np.dtype(np.uint8)} else "float32"
    length = max(1, frames // _chunks_per_array(request))
    return Precomputed(bands, length, value_type, request.recipe)


def _usual_seconds(found: dict[str, Inspection]) -> float:
    """The median length of the tracks found, so that an added one gives about as many chunks."""
    seconds = float(np.median([inspection.seconds for inspection in found.values()]))
    return _SYNTHETIC_SECONDS if math.isnan(seconds) else min(_SYNTHETIC_SECONDS, seconds)


def _tell_contradictions(tracks: Sequence[Track], hashes: dict[str, str]) -> None:
    """Say where one recording stands under two genres: nothing can learn both."""
    first: dict[str, Track] = {}
    for track in tracks:
        other = first.setdefault(hashes[track.path], track)
        if other.genre != track.genre:
            console.print(
                f"warning: {track.path} is the same recording as {other.path}, but their genres "
                f"are {track.genre!r} and {other.genre!r}",
                markup=False,
                style="yellow",
            )


def _tell_weak_split(tracks: Sequence[Track], request: DatasetRequest) -> None:
    """Say where figures on the split will not mean what they seem to."""
    if request.protocol == "given" and (both := groups_on_several_sides(tracks)):
        console.print(
            f"warning: {len(both)} groups (e.g. {both[0]!r}) are on several sides of the table's "
            "own split, so its figures are too high",
            markup=False,
            style="yellow",
        )
    if request.protocol == "cross-validation":
        tested = {track.genre for track in tracks if track.split == "test"}
        for genre in sorted({track.genre for track in tracks} - tested):
            console.print(
                f"warning: the test part of fold {request.fold} has no track of {genre!r}, which "
                "has fewer groups (artists) than there are folds: this fold's figures leave that "
                "genre out",
                markup=False,
                style="yellow",
            )


def _tell_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    if not skipped:
        return
    console.print(
        f"{len(skipped)} of the files are left out (all in {folder / 'skipped.csv'}):",
        markup=False,
    )
    for item in skipped[:5]:
        console.print(f"  {item.path}: {item.reason}", markup=False)
