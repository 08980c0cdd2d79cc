"""What preprocessing does with each track, in parallel over Ray: open it, or cut it into chunks."""

import os
from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.dataset import DatasetInfo, read_track_rows, shard_path, write_shard
from mgc_ray.data.reach import Reach
from mgc_ray.data.spectrogram import Features, Inspection, LogMel
from mgc_ray.data.split import chunk_splits
from mgc_ray.data.storage import Exchange
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.terminal.progress import progress

_TRACKS_PER_TASK = (8, 64)  # inspected, at least and at most: short enough for a progress bar
_CHUNKS_PER_TASK = 640  # cut into spectrograms, at most: 64 tracks of 30 s
GPU_SHARE = 0.125  # eight tasks a GPU, as most of their time goes to decoding, on a CPU
_GPU_DEVICE = "cuda"  # where a task that has a share of a GPU finds it


def synthesise_all(
    folder: Path,
    genres: Sequence[str],
    count: int,
    features: Features,
    seconds: float,
    reach: Reach,
) -> dict[Track, Inspection]:
    """Write `count` tracks of each genre into DIR/synthetic, and open them as all others are."""
    from mgc_ray.data.corpus import extra_track, write_track
    from mgc_ray.data.synth import EXTRA_SEED

    place = Path(os.path.abspath(folder)) / "synthetic"
    wanted = [(genre, index) for genre in genres for index in range(count)]

    def make(item: tuple[str, int]) -> tuple[Track, Inspection]:
        track = extra_track(place, *item)
        write_track(Path(track.path), *item, EXTRA_SEED, seconds)
        return track, features.inspect(track.path)

    from mgc_ray.tuning.parallel import parallel_map

    made = {}
    with progress("synthesising", len(wanted), "tracks") as advance:
        # where nodes do not see this folder, here: a task elsewhere could not leave them behind
        done = map(make, wanted) if reach.storage else parallel_map(wanted, make, *_TRACKS_PER_TASK)
        for track, inspection in done:
            made[track] = inspection
            advance(len(made))
    return dict(sorted(made.items(), key=lambda item: item[0].path))


def inspect_all(
    tracks: Sequence[Track], features: Features, reach: Reach
) -> tuple[dict[str, Inspection], list[Skipped]]:
    """Open every file; what was found by path, and what cannot be used."""

    def inspect(path: str) -> tuple[str, Inspection | str]:
        try:
            with reach(path) as place:
                return path, features.inspect(place)
        except UnusableTrackError as error:
            return path, str(error)

    found, skipped = {}, []
    from mgc_ray.tuning.parallel import parallel_map

    with progress("looking at", len(tracks), "tracks") as advance:
        for path, result in parallel_map([t.path for t in tracks], inspect, *_TRACKS_PER_TASK):
            if isinstance(result, Inspection):
                found[path] = result
            else:
                skipped.append(Skipped(path, result))
            advance(len(found) + len(skipped))
    order = {track.path: i for i, track in enumerate(tracks)}
    return found, sorted(skipped, key=lambda s: order[s.path])


def write_shards(
    exchange: Exchange,
    info: DatasetInfo,
    missing: Sequence[int],
    gpu: bool,
    reach: Reach,
    tracks_per_shard: int,
) -> None:
    """The second pass; writes the shards that are missing."""
    tracks, found = read_track_rows(exchange.folder)
    splits = chunk_splits(tracks, [inspection.chunks for inspection in found], info.seed)
    features, device = info.features, _GPU_DEVICE

    def write(
        item: tuple[int, Sequence[Track], Sequence[list[str]]],
    ) -> tuple[int, list[tuple[str, str]]]:
        """Write one shard; its number, and (path, reason) of tracks that are not what they were."""
        shard, tracks, splits = item
        pieces, changed = [], []
        for track, parts in zip(tracks, splits, strict=True):
            try:
                with reach(track.path) as place:
                    if gpu and isinstance(features, LogMel):
                        pieces.append(features.waveforms(place))
                    else:
                        pieces.append(features.chunks(place))
                if len(pieces[-1]) != len(parts):
                    changed.append((track.path, "its length is another"))
            except UnusableTrackError as error:
                changed.append((track.path, str(error)))
        if changed:
            return shard, changed
        if gpu and isinstance(features, LogMel):
            from mgc_ray.data.spectrogram_torch import transform_tracks

            pieces = transform_tracks(pieces, features, device)
        there, name = exchange.elsewhere(), shard_path(Path(), shard).as_posix()
        write_shard(there.folder, shard, info, list(zip(tracks, pieces, splits, strict=True)))
        there.send(name)
        there.clear(name)
        return shard, []

    items = []
    for shard in missing:
        part = slice(shard * tracks_per_shard, (shard + 1) * tracks_per_shard)
        items.append((shard, tracks[part], splits[part]))
    total = sum(len(tracks) for _, tracks, _ in items)
    chunks_per_shard = sum(inspection.chunks for inspection in found) / info.shards
    at_most = max(1, round(_CHUNKS_PER_TASK / chunks_per_shard))
    done = 0
    changed: list[tuple[str, str]] = []
    from mgc_ray.tuning.parallel import parallel_map

    with progress("spectrograms of", total, "tracks") as advance:
        for shard, shard_changed in parallel_map(items, write, 1, at_most, GPU_SHARE if gpu else 0):
            done += 1
            changed += shard_changed
            exchange.fetch(shard_path(Path(), shard).as_posix())
            advance(min(done * tracks_per_shard, total))
    if changed:
        path, reason = changed[0]
        raise RequestError(
            f"{path} has changed while the dataset was made ({reason}): run again with --anew"
        )
