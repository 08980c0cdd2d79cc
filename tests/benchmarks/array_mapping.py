"""Does audio give the arrays that were published of it: `GTZAN_ARRAYS` against the arrays.

    python tests/benchmarks/array_mapping.py AUDIO_FOLDER ARRAY_FOLDER

Compares each AUDIO_FOLDER/GENRE/ID.* with ARRAY_FOLDER/GENRE/ID.npy, uint8 [bands, columns]; what
has no partner is counted. A difference is made minus published, in steps of a track's own range of
dB, a 256th each, and in dB. Printed for all values and for parts of the bands, row 0 the lowest;
--json prints all figures, with those of each band, as the last line.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray.data.array_recipe import GTZAN_ARRAYS
from mgc_ray.data.audio import read_waveform
from mgc_ray.data.log_mel import LogMel
from mgc_ray.data.spectrogram import read_array

LOG_MEL = LogMel(
    GTZAN_ARRAYS.sample_rate,
    GTZAN_ARRAYS.n_fft,
    GTZAN_ARRAYS.hop_length,
    GTZAN_ARRAYS.n_mels,
    top_db=GTZAN_ARRAYS.top_db,
)
BANDS_PER_LINE = 16


def pairs(audio: Path, arrays: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(audio.glob("*/*")):
        array = arrays / path.parent.name / f"{path.stem}.npy"
        if array.exists():
            yield path, array


def compare(path: Path, array: Path) -> dict[str, Any]:
    """One track: what it is, and its differences, int [bands, columns], and in dB."""
    waveform = read_waveform(path)
    (made,) = GTZAN_ARRAYS.arrays(waveform)
    published = read_array(array)
    decibel = LOG_MEL.transform(waveform.resampled(LOG_MEL.sample_rate))
    steps = made.astype(int) - published
    spread = float(decibel.max() - decibel.min())
    return {
        "track": path.stem,
        "frames": decibel.shape[1],
        "range_db": spread,
        "steps": steps,
        "db": steps * spread / 256,
    }


def summary(tracks: list[dict[str, Any]], bands: slice) -> dict[str, float]:
    steps = np.concatenate([track["steps"][bands].ravel() for track in tracks])
    db = np.concatenate([track["db"][bands].ravel() for track in tracks])
    return {
        "equal": float((steps == 0).mean()),
        "different": int((steps != 0).sum()),
        "largest_steps": int(np.abs(steps).max()),
        "mean_db": float(np.abs(db).mean()),
        "largest_db": float(np.abs(db).max()),
    }


def line(name: str, figures: dict[str, float]) -> str:
    return (
        f"{name:>10} {figures['equal']:>11.5%} {figures['different']:>10} "
        f"{figures['largest_steps']:>8} {figures['mean_db']:>10.2e} {figures['largest_db']:>10.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path, help="AUDIO_FOLDER/GENRE/ID.*")
    parser.add_argument("arrays", type=Path, help="ARRAY_FOLDER/GENRE/ID.npy")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = list(pairs(args.audio, args.arrays))
    if not found:
        parser.error(f"no GENRE/ID is in both {args.audio} and {args.arrays}: name other folders")
    tracks = [compare(*pair) for pair in found]
    audio = len([path for path in args.audio.glob("*/*") if path.is_file()])
    ranges = [track["range_db"] for track in tracks]
    counts = sorted({track["frames"] for track in tracks})
    identical = sum(not track["steps"].any() for track in tracks)
    print(f"{len(tracks)} of {audio} audio files have an array; {identical} arrays are identical")
    print(f"range {min(ranges):.1f} to {max(ranges):.1f} dB; frames {counts}\n")
    print(f"{'bands':>10} {'equal':>11} {'different':>10} {'largest':>8} {'mean dB':>10} ", end="")
    print(f"{'largest dB':>10}")
    for start in range(0, GTZAN_ARRAYS.n_mels, BANDS_PER_LINE):
        end = min(start + BANDS_PER_LINE, GTZAN_ARRAYS.n_mels)
        print(line(f"{start}-{end - 1}", summary(tracks, slice(start, end))))
    total = summary(tracks, slice(None))
    print(line("all", total))
    if args.json:
        bands = [summary(tracks, slice(i, i + 1)) for i in range(GTZAN_ARRAYS.n_mels)]
        figures = {
            "tracks": len(tracks),
            "audio_files": audio,
            "identical_arrays": identical,
            "frames": counts,
            "range_db": [min(ranges), max(ranges)],
            "all": total,
            "bands": bands,
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
