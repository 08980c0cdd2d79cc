"""An ensemble as one ONNX file, checked against PyTorch on songs."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.config import ExportConfig
from mgc_ray.corpus.composer import GENRES
from mgc_ray.corpus.files import write_track
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.ensembling.onnx import check_onnx, export_onnx, largest_difference
from mgc_ray.ensembling.saved import Ensemble, SongFeatures, load_ensemble, shipped_model
from mgc_ray.terminal.command import console, count_of

LARGEST_DIFFERENCE = 1e-4  # of a probability
_SECONDS = 30.0  # of a generated song


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and how far its predictions for songs are from PyTorch's.

    `difference`: the largest of a probability. `other_genre`: how many songs get another genre.
    """

    path: Path
    seconds: float
    songs: int
    difference: float
    other_genre: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def agrees(self) -> bool:
        return self.difference <= LARGEST_DIFFERENCE and not self.other_genre

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 1e6:.1f} MB in {self.seconds:.0f} s; checked on "
            f"{count_of(self.songs, 'song')}: probabilities differ from PyTorch's by at most "
            f"{self.difference:.1e}, the genre for {count_of(self.other_genre, 'song')}"
        )


def export(config: ExportConfig) -> Exported:
    """Write the file and check it; RequestError for a model or song that cannot be read.

    It is checked on the songs that are given, else on one generated song of each built-in genre.
    """
    check_onnx(config.onnx)
    ensemble = load_ensemble(config.model or shipped_model())
    songs = list(_features(ensemble, config.songs))  # before minutes of exporting
    console.print(f"exporting {count_of(len(ensemble.checkpoints), 'member')}")
    started = time.monotonic()
    export_onnx(ensemble, config.onnx)
    seconds = time.monotonic() - started
    difference, other_genre = largest_difference(ensemble, config.onnx, songs)
    return Exported(config.onnx, seconds, len(songs), difference, other_genre)


def _features(ensemble: Ensemble, songs: Sequence[str]) -> Iterator[SongFeatures]:
    """The features of each song, or of generated ones where none is given."""
    for song in songs:
        try:
            yield ensemble.compute(song)
        except UnusableTrackError as error:
            raise RequestError(f"{song}: {error}: give another song to check on") from None
    if songs:
        return
    with tempfile.TemporaryDirectory() as folder:
        for genre in GENRES:
            path = Path(folder) / f"{genre}.wav"
            write_track(path, genre, 0, 0, _SECONDS)
            try:
                yield ensemble.compute(path)
            except UnusableTrackError as error:
                raise RequestError(
                    f"this model takes no audio ({error}), so the file cannot be checked on "
                    "generated songs: give .npy files like those that the model was trained on"
                ) from None
