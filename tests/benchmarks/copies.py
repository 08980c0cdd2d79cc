"""How many copies of recordings are found, how many other pairs, and at what cost.

    PYTHONPATH=. python tests/benchmarks/copies.py AUDIO [--arrays ARRAYS ...] [--copied 60]

AUDIO is a folder or table of music in which no recording is there twice. The copies are made here,
of the first --copied tracks of at least 10 s: MP3 and OGG at low quality, 0.5 s cut off, 6 dB less
and more, other sample rates, a piece of 5 s, and several of these at once. All are compared with
all tracks together. Cost: the fingerprint's share of decoding, computing log_mel and writing, same
tracks, one core; and finding copies among 10,000 tracks of 30 s, made of the music's codes in
pieces of 4. ARRAYS are tables of .npy spectrograms: all pairs found among them are printed, to be
looked at.
"""

import argparse
import io
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import soxr

from mgc_ray.config import DatasetConfig
from mgc_ray.data.audio import UnusableTrackError, Waveform, keep_freed_memory, read_waveform
from mgc_ray.data.copies import _copies, fingerprint
from mgc_ray.data.dataset import TRACKS_PER_SHARD, DatasetInfo, shard_path, write_shard
from mgc_ray.data.decoded import DecodedTrack
from mgc_ray.data.features import audio_features
from mgc_ray.data.features.array import read_array
from mgc_ray.data.tracks import Track, read_tracks


def coded(waveform: Waveform, form: str, subtype: str, level: float) -> Waveform:
    """Encoded and decoded again; `level` 1.0 is the lowest quality."""
    file, samples = io.BytesIO(), np.clip(waveform.samples, -1, 1)
    rate = waveform.sample_rate
    soundfile.write(file, samples, rate, format=form, subtype=subtype, compression_level=level)
    file.seek(0)
    return Waveform(*soundfile.read(file, dtype="float32"))


def changed(
    waveform: Waveform, after: float = 0.0, seconds: float = 1e9, gain: float = 1.0, rate: int = 0
) -> Waveform:
    start = round(after * waveform.sample_rate)
    piece = waveform.samples[start : start + round(seconds * waveform.sample_rate)] * gain
    rate = rate or waveform.sample_rate
    piece = soxr.resample(np.clip(piece, -1, 1), waveform.sample_rate, rate)
    return Waveform(piece.astype(np.float32), rate)


COPIES: dict[str, Callable[[Waveform], Waveform]] = {
    "MP3": lambda w: coded(w, "MP3", "MPEG_LAYER_III", 0.5),
    "MP3, lowest quality": lambda w: coded(w, "MP3", "MPEG_LAYER_III", 0.95),
    "OGG, lowest quality": lambda w: coded(w, "OGG", "VORBIS", 0.95),
    "0.5 s cut off": lambda w: changed(w, after=0.5),
    "6 dB less": lambda w: changed(w, gain=0.5),
    "6 dB more, clipped": lambda w: changed(w, gain=2.0),
    "11,025 Hz": lambda w: changed(w, rate=11_025),
    "16 kHz": lambda w: changed(w, rate=16_000),
    "48 kHz": lambda w: changed(w, rate=48_000),
    "5 s of it": lambda w: changed(w, after=3.217, seconds=5.0),
    "cut, 6 dB less, 44.1 kHz, MP3": lambda w: coded(
        changed(w, after=0.523, gain=0.5, rate=44_100), "MP3", "MPEG_LAYER_III", 0.8
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("audio")
    parser.add_argument("--arrays", nargs="*", default=[])
    parser.add_argument("--copied", type=int, default=60)
    args = parser.parse_args()
    of_audio(args.audio, args.copied)
    if args.arrays:
        of_arrays(args.arrays)


def of_audio(source: str, copied: int) -> None:
    keep_freed_memory()
    config = DatasetConfig(tracks=source)
    info = DatasetInfo(config, audio_features(config), "")
    codes: list[np.ndarray] = []
    labels: list[tuple[str, str]] = []  # track, kind of copy or ""
    copied_tracks = 0
    tracks = read_tracks(source, labelled=False).tracks
    for track in tracks:
        decoded = info.features.decode(track.path)
        codes.append(fingerprint(decoded))
        labels.append((track.path, ""))
        if decoded.seconds < 10 or copied_tracks == copied:
            continue
        copied_tracks += 1
        for kind, copy in COPIES.items():
            codes.append(fingerprint(DecodedTrack(copy(read_waveform(track.path)))))
            labels.append((track.path, kind))
    pairs = _copies(codes)
    right = [(a, b) for a, b in pairs if labels[a][0] == labels[b][0]]
    found = Counter(labels[max(a, b)][1] for a, b in right if not labels[min(a, b)][1])
    print(f"{len(tracks)} tracks, {copied_tracks} copied in {len(COPIES)} ways")
    for kind in COPIES:
        print(f"  {kind}: {found[kind]} of {copied_tracks} found")
    print(f"other pairs: {len(pairs) - len(right)} of {len(codes) * (len(codes) - 1) // 2}")
    for a, b in set(pairs) - set(right):
        print(f"  {labels[a]} = {labels[b]}")
    shares = [cost(info, tracks) for _ in range(5)]
    print(
        f"fingerprints take {median(shares):.1f} % of the work "
        f"({min(shares):.1f} to {max(shares):.1f})"
    )
    of_many(np.concatenate(codes))


def cost(info: DatasetInfo, tracks: list[Track]) -> float:
    """What fingerprints add to decoding, computing log_mel and writing, in percent."""
    others = fingerprints = 0.0
    for first in range(0, len(tracks), TRACKS_PER_SHARD):
        rows = []
        for track in tracks[first : first + TRACKS_PER_SHARD]:
            start = time.perf_counter()
            decoded = info.features.decode(track.path)
            features = info.features.of(decoded)
            between = time.perf_counter()
            codes = fingerprint(decoded)
            fingerprints += time.perf_counter() - between
            others += between - start
            rows.append((track, replace(features, fingerprint=codes)))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_shard(shard_path(Path(folder), 0), info, rows, [])
            others += time.perf_counter() - start
    return 100 * fingerprints / others


def of_many(codes: np.ndarray) -> None:
    random = np.random.default_rng(0)
    starts = random.integers(0, len(codes) - 4, (10_000, 80))
    many = [np.concatenate([codes[start : start + 4] for start in row]) for row in starts]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = _copies(many)
    seconds = time.perf_counter() - start
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"10,000 tracks: {seconds:.1f} s, {more:.0f} MB more, {len(found)} pairs")


def of_arrays(sources: list[str]) -> None:
    codes, names = [], []
    for track in (t for source in sources for t in read_tracks(source, labelled=False).tracks):
        try:
            codes.append(fingerprint(DecodedTrack(array=read_array(track.path))))
        except UnusableTrackError:
            continue
        names.append(f"{track.track_id} {track.artist}")
    pairs = _copies(codes)
    print(f"{len(codes)} arrays, {len(pairs)} pairs:")
    for a, b in pairs:
        print(f"  {names[a]} = {names[b]}")


if __name__ == "__main__":
    main()
