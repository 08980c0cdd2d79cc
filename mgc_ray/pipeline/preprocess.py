"""From a folder or table of music to a dataset, in parallel.

Each file is decoded once. The features of all tracks are written in an order that does not depend
on the split; then, when it is known which tracks are usable and which are identical, the split is
drawn from whole tracks and written beside them. What is there already is not made again.
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import ClusterConfig
from mgc_ray.data.audio import UnusableTrackError, keep_freed_memory
from mgc_ray.data.confounds import Properties, find_confounds, properties_of
from mgc_ray.data.copies import fingerprint, same_recordings
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    DatasetInfo,
    ShardContent,
    TrackPlace,
    finish,
    has_info,
    is_whole,
    read_info,
    read_shard_content,
    shard_path,
    shared_dataset,
    split_identity,
    write_shard,
    write_skipped,
    write_tracks,
)
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.device import is_out_of_memory
from mgc_ray.data.features import TrackFeatures
from mgc_ray.data.fetcher import TrackFetcher
from mgc_ray.data.files import (
    LOCK,
    atomic_write,
    check_output_folder,
    delete_partial_files,
    exclusive_lock,
)
from mgc_ray.data.more_tracks import new_recordings
from mgc_ray.data.names import one_line
from mgc_ray.data.split.protocols import add_to_train, draw_split
from mgc_ray.data.storage import SharedFolder, Storage
from mgc_ray.data.tags import artists_in_words
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.pipeline.findings import (
    check_genres,
    report_copies,
    report_damage,
    report_skipped,
    report_split,
    split_warnings,
)
from mgc_ray.pipeline.tables import Tables, report_left_out
from mgc_ray.settings import options
from mgc_ray.terminal.command import console, count_of
from mgc_ray.terminal.progress import progress

Shards = dict[int, Sequence[Track]]

_WITHOUT_DATASET = ("tracks.parquet", "skipped.csv", "synthetic", "chunks")
# whose content is compared instead of them
_PATHS = (
    *("tracks", "more_tracks", "exclude_artists", "features", "chunk_seconds"),
    *("path_column", "genre_column", "artist_column", "split_column"),
)
_TRACKS_PER_TASK = 64  # at most
# bytes of waveforms that are sent to a GPU: some 17 min; those of a shard are one object
_LARGEST = 64 << 20
_SYNTHETIC_SECONDS = 30.0  # at most: the length that generated songs are made for


def preprocess(
    tables: Tables, folder: Path, cluster: ClusterConfig, overwrite: bool = False
) -> DatasetInfo:
    """Make the dataset in `folder`, or as much of it as is missing.

    Raises RequestError, before any work, for a folder that holds a dataset of other settings
    (unless `overwrite`, which deletes it) and for a cluster of which a node sees neither the folder
    nor a storage.
    """
    storage = Storage(cluster.storage) if cluster.storage else None
    _check_folder(folder, tables)
    for note in tables.notes:
        console.print(one_line(note))
    shared = shared_dataset(folder, storage)
    if not overwrite:
        finished = finished_dataset(folder, storage)
        if has_info(folder):
            _check_same_dataset(folder, tables)
        if finished:
            return finished
    check_output_folder("--dataset", folder)
    folder.mkdir(parents=True, exist_ok=True)
    from mgc_ray.tuning.cluster import ray_cluster  # a finished dataset needs no Ray

    with exclusive_lock(folder, _wait), ray_cluster(cluster):
        delete_partial_files(folder)
        if overwrite:
            _delete(folder)
            shared.delete("chunks")
        console.print(artists_in_words(tables.main.artists_from))
        info = DatasetInfo(tables.config, tables.features, tables.listing)
        info.write(folder)
        shared.send("dataset.json")
        fetcher = _fetcher(shared, [track.path for track in tables.tracks], tables.listing)
        info = _make(folder, shared, info, tables, fetcher)
        fetcher.delete_uploads()
        return info


def finished_dataset(folder: Path, storage: Storage | None) -> DatasetInfo | None:
    """The dataset in `folder` where it is finished and complete, else None; no music is read.

    What another head of the cluster has made is fetched from the storage.
    """
    shared = shared_dataset(folder, storage)
    if not has_info(folder):
        shared.fetch("dataset.json")
        if not has_info(folder):
            return None
    info = read_info(folder)
    if not info.finished:
        return None
    needed = ["tracks.parquet", *map(_name, range(info.shards))]
    for name in needed:
        if not is_whole(folder / name):
            shared.fetch(name)
    if not (folder / "skipped.csv").exists():
        shared.fetch("skipped.csv")
    if not all(is_whole(folder / name) for name in needed):
        return None
    _complete_storage(shared, info)
    return info


def _make(
    folder: Path, shared: SharedFolder, info: DatasetInfo, tables: Tables, fetcher: TrackFetcher
) -> DatasetInfo:
    """Features, split, synthetic tracks; the finished dataset."""
    shards = shuffled_shards(tables.tracks)
    take_shards(folder, info, shards)
    write_shards(shared, info, shards, fetcher)
    contents = {shard: read_shard_content(shard_path(folder, shard), info) for shard in shards}
    places = track_places(contents)
    unusable = [one for content in contents.values() for one in content.skipped]
    order = {track.path: i for i, track in enumerate(tables.tracks)}
    skipped = [*tables.skipped, *sorted(unusable, key=lambda one: order[one.path])]
    write_skipped(folder, skipped)  # also for one whose request is refused by what was found
    report_skipped(folder, skipped, tables.no_audio)
    report_damage(folder, places)
    recordings = {path: place.recording for path, place in places.items()}
    usable = [track for track in tables.main.tracks if track.path in places]
    config = tables.config
    try:
        check_genres(folder, tables, places, unusable)
        tracks, left_out = draw_split(
            usable, recordings, config.protocol, info.seed, config.fold, config.drop_small_genres
        )
    except RequestError:  # whatever mends the tracks changes what shards are made from
        _delete(folder, keep=("skipped.csv",))
        for name in ("chunks", "dataset.json"):
            shared.delete(name)
        raise
    added = [track for track in tables.added if track.path in places]
    added, repeated = new_recordings(added, recordings, usable)
    genres = {track.genre for track in tracks}
    left_out += [
        Skipped(track.path, f"no usable genre {track.genre!r} in --tracks")
        for track in added
        if track.genre not in genres
    ]
    added = [track for track in added if track.genre in genres]
    report_left_out([*left_out, *repeated])
    write_skipped(folder, [*skipped, *left_out, *repeated])
    report_copies(folder, tracks, recordings)
    info = replace(info, genres=tuple(sorted(genres - {""})), shards=len(shards))
    if config.synthetic:
        seconds = _typical_seconds(places)
        made = synthetic_tracks(folder, info.genres, config.synthetic, seconds)
        if fetcher.storage:
            fetcher.upload([track.path for track in made], lambda _: None)
        more = _shards(made, first=len(shards))
        write_shards(shared, info, more, fetcher)
        contents = {s: read_shard_content(shard_path(folder, s), info) for s in more}
        places |= track_places(contents)
        added += [track for track in made if track.path in places]
        info = replace(info, shards=len(shards) + len(more))
    tracks = add_to_train(tracks, added)
    rows = [(track, places[track.path]) for track in tracks]
    write_tracks(folder, rows)
    report_split(tracks)
    confounds = find_confounds(tracks, [place for _, place in rows])
    info = replace(
        info,
        tracks=len(tracks),
        split_id=split_identity(rows, info),
        accuracy_without_music=confounds.accuracy,
        warnings=(
            *split_warnings(tracks, recordings, info),
            *confounds.warnings,
        ),
    )
    info = finish(folder, info)
    shared.send("dataset.json")
    _complete_storage(shared, info)
    return info


def shuffled_shards(tracks: Sequence[Track]) -> Shards:
    """Tracks in random order, so that each shard is a sample of all genres and parts.

    What is streamed shard by shard is then well mixed. The order is the same for each split.
    """
    order = np.random.default_rng(0).permutation(len(tracks))
    return _shards([tracks[i] for i in order], first=0)


def _shards(tracks: Sequence[Track], first: int) -> Shards:
    return {
        first + number: tracks[start : start + TRACKS_PER_SHARD]
        for number, start in enumerate(range(0, len(tracks), TRACKS_PER_SHARD))
    }


def take_shards(folder: Path, info: DatasetInfo, shards: Shards) -> None:
    """Link what a dataset beside this one has, where its music and features are the same.

    The folds of a cross-validation differ in their split alone, so features are computed once.
    """
    for other in sorted(folder.parent.glob("*/dataset.json")):
        if not (missing := _missing(folder, shards)):
            return
        taken = [
            shard for shard in missing if _take_shard(other.parent, folder, info, shards, shard)
        ]
        if taken:
            count = sum(len(shards[shard]) for shard in taken)
            console.print(f"features of {count} tracks are those of {other.parent}", markup=False)


def _take_shard(other: Path, folder: Path, info: DatasetInfo, shards: Shards, shard: int) -> bool:
    source, target = shard_path(other, shard), shard_path(folder, shard)
    try:
        content = read_shard_content(source, info)
    except (OSError, RequestError):  # not there, or of other music or features
        return False
    paths = {one.path for one in content.tracks} | {one.path for one in content.skipped}
    if other == folder or paths != {track.path for track in shards[shard]}:
        return False
    target.parent.mkdir(exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(source, temporary)
    return True


def write_shards(
    shared: SharedFolder, info: DatasetInfo, shards: Shards, fetcher: TrackFetcher
) -> None:
    """Decode tracks and compute their features, in parallel; only for shards that are missing."""
    for shard in _missing(shared.folder, shards):
        shared.fetch(_name(shard))
    missing = _missing(shared.folder, shards)

    from mgc_ray.tuning.tasks import free_gpus, parallel_map, parallel_map_on_gpus

    gpus = free_gpus() if missing and info.features.from_chunks else 0
    networks = info.features.from_chunks if gpus else {}

    def compute(item: tuple[int, Sequence[Track]]) -> _Computed:
        keep_freed_memory()
        shard, tracks = item
        usable, skipped = [], []
        for track in tracks:
            try:
                with fetcher(track.path) as path:
                    features, rest = _features(path, info, networks)
                if features.too_short:
                    raise UnusableTrackError(features.too_short)
                usable.append((track, features, rest))
            except UnusableTrackError as error:
                skipped.append(Skipped(track.path, str(error)))
        return _Computed(shard, usable, skipped)

    def write(computed: _Computed) -> int:
        shard = computed.shard
        usable = [(t, _complete(info, features, rest)) for t, features, rest in computed.usable]
        dataset = shared_dataset(shared.folder, shared.storage, info).on_this_node()
        write_shard(dataset.folder / _name(shard), info, usable, computed.skipped)
        dataset.send(_name(shard))
        dataset.clear(_name(shard))
        return shard

    items = [(shard, shards[shard]) for shard in missing]
    total, done = sum(map(len, shards.values())), 0
    done = total - sum(len(tracks) for _, tracks in items)
    if gpus:
        console.print(f"computing {', '.join(networks)} on {count_of(gpus, 'GPU')}")
        written = parallel_map_on_gpus(items, compute, write, gpus)
    else:
        at_most = max(1, _TRACKS_PER_TASK // TRACKS_PER_SHARD)
        written = parallel_map(items, lambda item: write(compute(item)), 1, at_most)
    with progress("computing features of", total, "tracks") as advance:
        for shard in written:
            shared.fetch(_name(shard))
            done += len(shards[shard])
            advance(done)


@dataclass(frozen=True)
class _Computed:
    """The features of a shard's tracks, without those that are left to a GPU.

    `usable`: of each track also the waveforms from which that computes the rest, if any.
    """

    shard: int
    usable: list[tuple[Track, TrackFeatures, DecodedTrack | None]]
    skipped: list[Skipped]


def _features(
    path: str, info: DatasetInfo, networks: dict[str, int]
) -> tuple[TrackFeatures, DecodedTrack | None]:
    """The features of a file but those of `networks`, and what these take (their sample rates)."""
    track = info.features.decode(path)
    rest = track.only_chunks(networks.values()) if networks else None
    if rest and rest.nbytes > _LARGEST:
        rest = None
    now = [name for name in info.features.columns if not rest or name not in networks]
    features = replace(
        info.features.only(now).of(track),
        fingerprint=fingerprint(track),
        properties=properties_of(track.waveform) if track.waveform else Properties(),
    )
    return features, rest


def _complete(
    info: DatasetInfo, features: TrackFeatures, rest: DecodedTrack | None
) -> TrackFeatures:
    """With the features that are still missing, in the order of the dataset's columns."""
    if rest is None:
        return features
    missing = [name for name in info.features.columns if name not in features.columns]
    try:
        columns = features.columns | {name: info.features.column(name, rest) for name in missing}
    except (RequestError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RequestError(
            f"{' and '.join(missing)} must fit into a GPU's memory several times, but this is full "
            f"({str(error).splitlines()[0]}): make the dataset without GPUs, by "
            "CUDA_VISIBLE_DEVICES= before the command, or --num-gpus=0 where Ray is started"
        ) from None
    return replace(features, columns={name: columns[name] for name in info.features.columns})


def track_places(contents: dict[int, ShardContent]) -> dict[str, TrackPlace]:
    """Where the chunks of each usable track are, by path; which are copies is found out here."""
    tracks = {t.path: (shard, t) for shard, content in contents.items() for t in content.tracks}
    recordings = same_recordings(
        {path: track.fingerprint for path, (_, track) in tracks.items()},
        {path: track.content_hash for path, (_, track) in tracks.items()},
    )
    return {
        path: TrackPlace(
            shard=shard,
            row_group=track.row_group,
            chunks=track.chunks,
            seconds=track.seconds,
            content_hash=track.content_hash,
            recording=recordings[path],
            lost_seconds=track.lost_seconds,
            properties=track.properties,
        )
        for path, (shard, track) in tracks.items()
    }


def synthetic_tracks(
    folder: Path, genres: Sequence[str], count: int, seconds: float
) -> list[Track]:
    """Write `count` generated tracks of each genre into DIR/synthetic."""
    from mgc_ray.corpus.files import extra_track, write_extra_tracks

    place = Path(os.path.abspath(folder)) / "synthetic"
    made = [(genre, index) for genre in genres for index in range(count)]
    with progress("generating", len(made), "tracks") as advance:
        write_extra_tracks(place, made, seconds, advance)
    return sorted((extra_track(place, *one) for one in made), key=lambda track: track.path)


def _complete_storage(shared: SharedFolder, info: DatasetInfo) -> None:
    """Send what the storage lacks of a finished dataset, which may be older than the storage.

    Nodes that stream it, and another head that continues, have it from there alone.
    """
    names = ["tracks.parquet", "skipped.csv", *map(_name, range(info.shards))]
    missing = shared.missing(names)
    for name in missing:
        shared.send(name)
    if missing:  # last: it says that everything is there
        shared.send("dataset.json")


def _fetcher(shared: SharedFolder, paths: Sequence[str], listing: str) -> TrackFetcher:
    """How the cluster's nodes read the tracks; uploads them to the storage where necessary.

    Raises RequestError where only this node sees them, or the dataset's folder.
    """
    from mgc_ray.tuning.cluster import check_shared, nodes_without

    check_shared(shared)
    blind = nodes_without(paths[0])
    if not blind:
        return TrackFetcher()
    if shared.storage is None:
        raise RequestError(
            f"all nodes of the cluster must see the tracks, but {blind[0]} does not see "
            f"{paths[0]}: put them on a path that all nodes share, or give --storage"
        )
    fetcher = TrackFetcher(shared.storage, f"datasets/{shared.folder.name}/tracks-{listing[:12]}")
    with progress("uploading", len(paths), "tracks") as advance:
        fetcher.upload(paths, advance)
    return fetcher


def _wait(holder: str) -> None:
    console.print(f"{holder} is making this dataset: waiting for it")


def _delete(folder: Path, keep: Sequence[str] = ()) -> None:
    """Delete a dataset, in an order that leaves a dataset or nothing wherever it is interrupted."""
    if (folder / "dataset.json").exists():
        for name in ("chunks", "dataset.json", *_WITHOUT_DATASET):
            if name in keep:
                continue
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def _check_folder(folder: Path, tables: Tables) -> None:
    """Refuse a place among the music, or that holds other things."""
    source = tables.main.source
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise RequestError(
            f"--dataset {folder} is inside --tracks {source}, whose folders are genres: give a "
            "folder elsewhere"
        )
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = {name for name in names if not name.endswith(".tmp")} - {LOCK, *_WITHOUT_DATASET}
    if others and "dataset.json" not in names:
        raise RequestError(
            f"--dataset {folder} is a folder with other things in it: give a new or empty one"
        )


def _check_same_dataset(folder: Path, tables: Tables) -> None:
    """Refuse a folder with a dataset of other settings or tracks."""
    info = read_info(folder)
    remedy = "give another --dataset, or add --overwrite to delete this one and make it again"
    for option in options(type(tables.config)):
        before, now = getattr(info.config, option.name), getattr(tables.config, option.name)
        if option.name not in _PATHS and before != now:
            raise RequestError(
                f"{folder} was made with {option.name} {before!r}, but it is now {now!r}: {remedy}"
            )
    if info.features != tables.features:
        raise RequestError(
            f"{folder} was made with features {info.features}, but now they are "
            f"{tables.features}: {remedy}"
        )
    if info.listing != tables.listing:
        usable = f" with {info.tracks} usable tracks" if info.finished else ""
        raise RequestError(
            f"{folder} was made from {info.config.tracks}{usable}, but {tables.main.source} has "
            f"changed since or is another table ({len(tables.main.tracks)} rows): {remedy}"
        )


def _missing(folder: Path, shards: Sequence[int] | Shards) -> list[int]:
    return [shard for shard in shards if not is_whole(shard_path(folder, shard))]


def _name(shard: int) -> str:
    return shard_path(Path(), shard).as_posix()


def _typical_seconds(places: dict[str, TrackPlace]) -> float:
    """The median length of the tracks, so that an added one gives about as many chunks."""
    seconds = float(np.median([place.seconds for place in places.values()]))
    return _SYNTHETIC_SECONDS if math.isnan(seconds) else min(_SYNTHETIC_SECONDS, seconds)
