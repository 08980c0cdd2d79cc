"""How far the arrays that `GTZAN_ARRAYS` makes from audio are from the published ones.

    python tests/benchmarks/array_mapping.py AUDIO_FOLDER ARRAY_FOLDER

Compares each AUDIO_FOLDER/GENRE/ID.* with ARRAY_FOLDER/GENRE/ID.npy, uint8 [bands, columns]; audio
without an array is counted. A difference is computed minus published, in steps (256ths of the
track's own range of dB) and in dB. Printed for ranges of bands, row 0 being the lowest, and for all
values; --json prints all figures, with those of each band, as the last line.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgc_ray.data.audio import read_waveform
from mgc_ray.data.features._array_recipe import GTZAN_ARRAYS
from mgc_ray.data.features.array import read_array
from mgc_ray.data.features.log_mel import LogMel

LOG_MEL = LogMel(
    sample_rate=GTZAN_ARRAYS.sample_rate,
    n_fft=GTZAN_ARRAYS.n_fft,
    hop_length=GTZAN_ARRAYS.hop_length,
    n_mels=GTZAN_ARRAYS.n_mels,
    top_db=GTZAN_ARRAYS.top_db,
)
BANDS_PER_LINE = 16


def pairs(audio: Path, arrays: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(audio.glob("*/*")):
        array = arrays / path.parent.name / f"{path.stem}.npy"
        if array.exists():
            yield path, array


@dataclass(frozen=True)
class Compared:
    """One track: its differences [bands, columns] in steps and in dB, and its range of dB."""

    steps: np.ndarray
    db: np.ndarray
    frames: int
    range_db: float


def compare(path: Path, array: Path) -> Compared:
    waveform = read_waveform(path)
    (computed,) = GTZAN_ARRAYS.arrays(waveform)
    decibel = LOG_MEL.transform(waveform.resampled(LOG_MEL.sample_rate))
    steps = computed.astype(int) - read_array(array)
    range_db = float(decibel.max() - decibel.min())
    return Compared(steps, steps * range_db / 256, decibel.shape[1], range_db)


def summary(tracks: list[Compared], bands: slice) -> dict[str, float]:
    steps = np.concatenate([track.steps[bands].ravel() for track in tracks])
    db = np.concatenate([track.db[bands].ravel() for track in tracks])
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
    tracks = [compare(*pair) for pair in pairs(args.audio, args.arrays)]
    if not tracks:
        parser.error(f"no GENRE/ID is in both {args.audio} and {args.arrays}: give other folders")
    audio = len([path for path in args.audio.glob("*/*") if path.is_file()])
    ranges = [track.range_db for track in tracks]
    counts = sorted({track.frames for track in tracks})
    identical = sum(not track.steps.any() for track in tracks)
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
