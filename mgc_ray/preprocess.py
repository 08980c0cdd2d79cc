"""Turn a folder or table of music into a dataset, in parallel.

    python -m mgc_ray.preprocess --tracks FOLDER_OR_CSV --dataset DIR

Two passes of Ray Data over the tracks: one decodes each file to see what is usable and what is
identical, so that the split is drawn from whole tracks before any is cut; one writes the chunks.
With --gpu the second pass makes its spectrograms on the cluster's GPUs (tested on a CPU only).
"""

import hashlib
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.dataset import (
    TRACKS_PER_SHARD,
    DatasetInfo,
    describe,
    finish,
    read_info,
    read_track_rows,
    shard_path,
    write_shard,
    write_skipped,
    write_tracks,
)
from mgc_ray.data.spectrogram import Features, Inspection, LogMel, Precomputed, read_array
from mgc_ray.data.tracks import (
    PROTOCOLS,
    Skipped,
    Track,
    TrackTable,
    check_table,
    chunk_splits,
    draw_split,
    groups_on_several_sides,
    read_tracks,
)
from mgc_ray.terminal.command import Parser, console, print_json, run, seed
from mgc_ray.terminal.progress import progress

T = TypeVar("T")
R = TypeVar("R")

_CHUNKS_PER_ARRAY = 10  # the baseline's ten pieces of a track
_WITHOUT_DATASET = ("tracks.parquet", "skipped.csv")  # are written before dataset.json
_TRACKS_PER_TASK = (8, 64)  # inspected, at least and at most: short enough for a progress bar
_CHUNKS_PER_TASK = 640  # cut into spectrograms, at most: 64 tracks of 30 s
_TASKS = 4000  # about as many at most
_GPU_SHARE = 0.125  # eight tasks a GPU, as most of their time goes to decoding, on a CPU
_GPU_DEVICE = "cuda"  # where a task that has a share of a GPU finds it


def preprocess(
    tracks: str | Path,
    dataset: str | Path,
    protocol: str = "grouped",
    seed: int = 0,
    anew: bool = False,
    address: str | None = None,
    gpu: bool = False,
) -> DatasetInfo:
    """Make the dataset in the folder `dataset`, or as much of it as is missing.

    Raises RequestError, before any work, for a table that cannot be split, for a folder that holds
    a dataset of other settings (unless `anew`, which deletes it) and for `gpu` without one.
    """
    folder = Path(dataset)
    table = read_tracks(tracks)
    check_table(table, protocol)
    listing = _listing(table)
    _check_folder(folder, table)
    if gpu and table.tracks[0].is_array:
        raise RequestError(
            "--gpu makes spectrograms of audio, but the tracks are .npy spectrograms: leave it out"
        )
    info = None
    if (folder / "dataset.json").exists() and not anew:
        info = read_info(folder)
        _check_same_request(folder, info, table, listing, protocol, seed)
        missing = _missing_shards(folder, info)
        if info.finished and not missing:
            return info
    # imports Ray, which a finished dataset has no need of
    from mgc_ray.tuning.cluster import connected

    with connected(address) as resources:
        if gpu and resources.get("GPU", 0) < _GPU_SHARE:
            raise RequestError(
                "--gpu needs a GPU in the Ray cluster, but there is none: leave it out, or name a "
                "cluster that has one with --address"
            )
        if anew:
            _delete(folder)
        if info is None:
            info = _inspect_and_split(folder, table, listing, protocol, seed)
            missing = _missing_shards(folder, info)
        _write_shards(folder, info, missing, gpu)
    return finish(folder, info)


def _delete(folder: Path) -> None:
    """Delete a dataset, in an order that leaves a dataset or nothing wherever it is interrupted."""
    if (folder / "dataset.json").exists():
        if (folder / "chunks").exists():
            shutil.rmtree(folder / "chunks")
        for name in ("dataset.json", *_WITHOUT_DATASET):
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
    others = {name for name in names if not name.endswith(".tmp")} - set(_WITHOUT_DATASET)
    if others and "dataset.json" not in names:
        raise RequestError(
            f"--dataset {folder} is a folder with other things in it: name a new or empty one"
        )


def dataset_key(tracks: str | Path, protocol: str, seed: int) -> str:
    """Eight characters that change with the table, its files, the protocol and the seed."""
    table = read_tracks(tracks)
    settings = (_listing(table), protocol, seed, repr(LogMel()))
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def _listing(table: TrackTable) -> str:
    """A hash of the rows and of each file's size and time of change; no file is opened."""
    digest = hashlib.sha256()
    for track in table.tracks:
        try:
            status = os.stat(track.path)
            size, changed = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            size, changed = -1, -1
        digest.update(repr((asdict(track), size, changed)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_same_request(
    folder: Path, info: DatasetInfo, table: TrackTable, listing: str, protocol: str, seed: int
) -> None:
    wanted: dict[str, tuple[Any, Any]] = {
        "protocol": (info.protocol, protocol),
        "seed": (info.seed, seed),
    }
    if isinstance(info.features, LogMel) and not table.tracks[0].is_array:
        wanted["features"] = (info.features, LogMel())
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
    folder: Path, table: TrackTable, listing: str, protocol: str, seed: int
) -> DatasetInfo:
    """The first pass; writes all of the dataset but its shards."""
    features = _choose_features(table.tracks)
    found, skipped = _inspect(table.tracks, features)
    skipped = [*table.skipped, *skipped]
    usable = [track for track in table.tracks if track.path in found]
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
    tracks, left_out = draw_split(usable, hashes, protocol, seed)
    write_skipped(folder, [*skipped, *left_out])
    _tell_contradictions(tracks, hashes)
    if protocol == "given" and (both := groups_on_several_sides(tracks)):
        console.print(
            f"warning: {len(both)} groups (e.g. {both[0]!r}) are on several sides of the table's "
            "own split, so its figures are too high",
            markup=False,
            style="yellow",
        )
    info = DatasetInfo(
        features=features,
        genres=tuple(sorted({track.genre for track in tracks})),
        protocol=protocol,
        seed=seed,
        source=str(table.source),
        listing=listing,
        shards=-(-len(tracks) // TRACKS_PER_SHARD),
        tracks=len(tracks),
    )
    write_tracks(folder, tracks, [found[track.path] for track in tracks])
    info.write(folder)
    return info


def _choose_features(tracks: Sequence[Track]) -> Features:
    """Log-mel for audio; for arrays, ten pieces of the most usual size among the readable ones."""
    if not tracks[0].is_array:
        return LogMel()
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
    value_type = "uint8" if types == {np.dtype(np.uint8)} else "float32"
    return Precomputed(bands, max(1, frames // _CHUNKS_PER_ARRAY), value_type)


def _inspect(
    tracks: Sequence[Track], features: Features
) -> tuple[dict[str, Inspection], list[Skipped]]:
    """Open every file; what was found by path, and what cannot be used."""

    def inspect(path: str) -> tuple[str, Inspection | str]:
        try:
            return path, features.inspect(path)
        except UnusableTrackError as error:
            return path, str(error)

    found, skipped = {}, []
    with progress("looking at", len(tracks), "tracks") as advance:
        for path, result in _map([t.path for t in tracks], inspect, *_TRACKS_PER_TASK):
            if isinstance(result, Inspection):
                found[path] = result
            else:
                skipped.append(Skipped(path, result))
            advance(len(found) + len(skipped))
    order = {track.path: i for i, track in enumerate(tracks)}
    return found, sorted(skipped, key=lambda s: order[s.path])


def _write_shards(folder: Path, info: DatasetInfo, missing: Sequence[int], gpu: bool) -> None:
    """The second pass; writes the shards that are missing."""
    tracks, found = read_track_rows(folder)
    if info.leaky:
        splits = chunk_splits([inspection.chunks for inspection in found], info.seed)
    else:
        splits = [[t.split] * i.chunks for t, i in zip(tracks, found, strict=True)]
    features, device = info.features, _GPU_DEVICE

    def write(item: tuple[int, Sequence[Track], Sequence[list[str]]]) -> list[tuple[str, str]]:
        """Write one shard; (path, reason) of tracks that are not what they were."""
        shard, tracks, splits = item
        pieces, changed = [], []
        for track, parts in zip(tracks, splits, strict=True):
            try:
                if gpu and isinstance(features, LogMel):
                    pieces.append(features.waveforms(track.path))
                else:
                    pieces.append(features.chunks(track.path))
                if len(pieces[-1]) != len(parts):
                    changed.append((track.path, "its length is another"))
            except UnusableTrackError as error:
                changed.append((track.path, str(error)))
        if changed:
            return changed
        if gpu and isinstance(features, LogMel):
            from mgc_ray.data.spectrogram_torch import transform_tracks

            pieces = transform_tracks(pieces, features, device)
        write_shard(folder, shard, info, list(zip(tracks, pieces, splits, strict=True)))
        return []

    items = []
    for shard in missing:
        part = slice(shard * TRACKS_PER_SHARD, (shard + 1) * TRACKS_PER_SHARD)
        items.append((shard, tracks[part], splits[part]))
    total = sum(len(tracks) for _, tracks, _ in items)
    chunks_per_shard = sum(inspection.chunks for inspection in found) / info.shards
    at_most = max(1, round(_CHUNKS_PER_TASK / chunks_per_shard))
    done = 0
    changed: list[tuple[str, str]] = []
    with progress("spectrograms of", total, "tracks") as advance:
        for shard_changed in _map(items, write, 1, at_most, _GPU_SHARE if gpu else 0):
            done += 1
            changed += shard_changed
            advance(min(done * TRACKS_PER_SHARD, total))
    if changed:
        path, reason = changed[0]
        raise RequestError(
            f"{path} has changed while the dataset was made ({reason}): run again with --anew"
        )


def _map(
    items: Sequence[T], function: Callable[[T], R], at_least: int, at_most: int, gpus: float = 0
) -> Iterator[R]:
    """Apply a function to items on all CPUs of the cluster; results as they come, in any order.

    A task takes `at_least` to `at_most` items, and `gpus` of a GPU.
    """
    if not items:
        return
    import ray.data

    # Else Ray Data holds CPUs back for other operators, which do not exist: of two, one lay idle.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False
    available = ray.cluster_resources().get("GPU" if gpus else "CPU", 1)
    # twice as many as run at a time, so that pieces become smaller before the end
    pieces = _pieces(items, 2 * available / (gpus or 1), at_least, at_most)
    # bytes, as Arrow would make columns of its own types of Python's objects, or try and fail
    source = ray.data.from_items(
        [{"items": pickle.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces)
    )

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        try:
            results: Any = [function(item) for item in pickle.loads(row["items"])]
        except RequestError as error:  # raised, it would come out as one of Ray's own
            results = error
        return {"results": pickle.dumps(results)}

    for row in source.map(apply, num_gpus=gpus or None).iter_rows():
        results = pickle.loads(row["results"])
        if isinstance(results, RequestError):
            raise results
        yield from results


def _pieces(items: Sequence[T], tasks: float, at_least: int, at_most: int) -> list[Sequence[T]]:
    """Items in pieces for tasks: each takes the `tasks`-th part of what is left.

    Large pieces, as each task costs 20 ms of Ray's own, but smaller ones towards the end, to which
    all CPUs so come together. More than `_TASKS * at_most` items make larger ones, as the driver
    plans all of them at once.
    """
    at_most = max(at_most, len(items) // _TASKS)
    pieces, start = [], 0
    while start < len(items):
        size = max(at_least, min(at_most, int((len(items) - start) / tasks)))
        pieces.append(items[start : start + size])
        start += size
    return pieces


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


def _tell_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    if not skipped:
        return
    console.print(
        f"{len(skipped)} of the files cannot be used (all in {folder / 'skipped.csv'}):",
        markup=False,
    )
    for item in skipped[:5]:
        console.print(f"  {item.path}: {item.reason}", markup=False)


def main() -> int:
    """Parse the command line, preprocess, print what was made."""
    parser = Parser(
        prog="python -m mgc_ray.preprocess",
        description="Turn a folder or table of music into a dataset, in parallel.",
    )
    parser.add_argument(
        "--tracks", required=True, help="folder with a subfolder a genre, or CSV path,genre[,...]"
    )
    parser.add_argument("--dataset", required=True, metavar="DIR", help="where to write it")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="grouped", help="how to split")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the split")
    parser.add_argument("--anew", action="store_true", help="delete what DIR holds and start anew")
    parser.add_argument("--address", help="a Ray cluster, e.g. ray-head:6379")
    parser.add_argument(
        "--gpu", action="store_true", help="make the spectrograms on the cluster's GPUs"
    )
    parser.add_argument("--json", action="store_true", help="print dataset.json on standard output")
    args = parser.parse_args()
    try:
        info = preprocess(
            args.tracks, args.dataset, args.protocol, args.seed, args.anew, args.address, args.gpu
        )
    except KeyboardInterrupt:
        console.print("stopped by Ctrl-C: the same command again does only what is missing")
        return 130
    tracks, found = read_track_rows(Path(args.dataset))
    chunks = sum(inspection.chunks for inspection in found)
    parts = Counter(track.split or "split by chunk" for track in tracks)
    console.print(
        f"{info.tracks} tracks of {len(info.genres)} genres, {chunks} chunks "
        f"({describe(info.features)}) in {args.dataset}\n"
        f"split {info.protocol}, seed {info.seed}: "
        + ", ".join(f"{count} {name}" for name, count in sorted(parts.items())),
        markup=False,
    )
    if args.json:
        print_json(replace(info, finished=True).settings | {"chunks": chunks})
    return 0


if __name__ == "__main__":
    run("mgc_ray.preprocess", main)
