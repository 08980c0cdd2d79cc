"""Turn a folder or table of music into a dataset, in parallel.

    python -m mgc_ray.preprocess --tracks FOLDER_OR_CSV --dataset DIR

Two passes of Ray Data over the tracks: one decodes each file to see what is usable and what is
identical, so that the split is drawn from whole tracks before any is cut; one writes the chunks.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
from mgc_ray.tuning.cluster import connected

_CHUNKS_PER_ARRAY = 10  # the baseline's ten pieces of a track
_WITHOUT_DATASET = ("tracks.parquet", "skipped.csv")  # are written before dataset.json
_TRACKS_PER_TASK = 8  # inspected at a time: short enough for a lively progress bar


def preprocess(
    tracks: str | Path,
    dataset: str | Path,
    protocol: str = "grouped",
    seed: int = 0,
    anew: bool = False,
    address: str | None = None,
) -> DatasetInfo:
    """Make the dataset in the folder `dataset`, or as much of it as is missing.

    Raises RequestError, before any work, for a table that cannot be split and for a folder that
    holds a dataset of other settings (unless `anew`, which deletes it).
    """
    folder = Path(dataset)
    table = read_tracks(tracks)
    check_table(table, protocol)
    listing = _listing(table)
    _check_folder(folder, table)
    if anew and (folder / "dataset.json").exists():
        # in this order, so that what is left by an end in between is a dataset or nothing
        if (folder / "chunks").exists():
            shutil.rmtree(folder / "chunks")
        for name in ("dataset.json", *_WITHOUT_DATASET):
            (folder / name).unlink(missing_ok=True)
    info = None
    if (folder / "dataset.json").exists():
        info = read_info(folder)
        _check_same_request(folder, info, table, listing, protocol, seed)
        missing = _missing_shards(folder, info)
        if info.finished and not missing:
            return info
    with connected(address):
        if info is None:
            info = _inspect_and_split(folder, table, listing, protocol, seed)
            missing = _missing_shards(folder, info)
        _write_shards(folder, info, missing)
    return finish(folder, info)


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

    def inspect(item: dict[str, Any]) -> dict[str, Any]:
        results = []
        for path in item["paths"]:
            try:
                results.append({"path": path, "found": asdict(features.inspect(path))})
            except UnusableTrackError as error:
                results.append({"path": path, "reason": str(error)})
        return {"results": results}

    pieces = [
        {"paths": [str(t.path) for t in tracks[i : i + _TRACKS_PER_TASK]]}
        for i in range(0, len(tracks), _TRACKS_PER_TASK)
    ]
    found, skipped = {}, []
    with progress("looking at", len(tracks), "tracks") as advance:
        for row in _map(pieces, inspect):
            for result in row["results"]:
                if result.get("reason"):
                    skipped.append(Skipped(result["path"], result["reason"]))
                else:
                    found[result["path"]] = Inspection(**result["found"])
            advance(len(found) + len(skipped))
    order = {track.path: i for i, track in enumerate(tracks)}
    return found, sorted(skipped, key=lambda s: order[s.path])


def _write_shards(folder: Path, info: DatasetInfo, missing: Sequence[int]) -> None:
    """The second pass; writes the shards that are missing."""
    tracks, found = read_track_rows(folder)
    if info.leaky:
        splits = chunk_splits([inspection.chunks for inspection in found], info.seed)
    else:
        splits = [[t.split] * i.chunks for t, i in zip(tracks, found, strict=True)]

    def write(item: dict[str, Any]) -> dict[str, Any]:
        rows, changed = [], []
        for row in item["rows"]:
            track = Track(**row["track"])
            try:
                chunks = info.features.chunks(track.path)
            except UnusableTrackError as error:
                changed.append({"path": track.path, "reason": str(error)})
                continue
            if len(chunks) != len(row["splits"]):
                changed.append({"path": track.path, "reason": "its length is another"})
                continue
            rows.append((track, chunks, list(row["splits"])))
        if not changed:
            write_shard(folder, item["shard"], info, rows)
        return {"tracks": len(item["rows"]), "changed": changed}

    items: list[dict[str, Any]] = []
    for shard in missing:
        part = slice(shard * TRACKS_PER_SHARD, (shard + 1) * TRACKS_PER_SHARD)
        rows = [
            {"track": asdict(t), "splits": s}
            for t, s in zip(tracks[part], splits[part], strict=True)
        ]
        items.append({"shard": shard, "rows": rows})
    total = sum(len(item["rows"]) for item in items)
    done = 0
    changed: list[dict[str, str]] = []
    with progress("spectrograms of", total, "tracks") as advance:
        for row in _map(items, write):
            done += row["tracks"]
            changed += list(row["changed"])
            advance(done)
    if changed:
        raise RequestError(
            f"{changed[0]['path']} has changed while the dataset was made "
            f"({changed[0]['reason']}): run again with --anew"
        )


def _map(
    items: Sequence[dict[str, Any]], function: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Apply a function to items on all CPUs of the cluster, one task each; results as they come."""
    if not items:
        return
    import ray.data

    # One column of Python objects: Arrow would turn nested rows with missing keys into None-filled
    # structs, and all items into one type.
    source = ray.data.from_items(
        [{"item": [item]} for item in items], override_num_blocks=len(items)
    )

    def apply(row: dict[str, Any]) -> dict[str, Any]:
        return {"item": [function(row["item"][0])]}

    for row in source.map(apply).iter_rows():
        yield row["item"][0]


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
    parser.add_argument("--json", action="store_true", help="print dataset.json on standard output")
    args = parser.parse_args()
    try:
        info = preprocess(
            args.tracks, args.dataset, args.protocol, args.seed, args.anew, args.address
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
