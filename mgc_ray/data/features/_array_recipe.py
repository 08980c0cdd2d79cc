"""Audio -> uint8 arrays [bands, columns], as others have published spectrograms.

A model trained on published arrays knows no other scale than theirs. GTZAN's, which are part of
several public datasets, are the pixels of pictures: a dB log-mel spectrogram of about 30 s, 387.5
pixels wide, in 256 colours, of which the 387 whole columns were kept. So a column is the frame
under its middle (columns are 77.5 ms apart), and a value is the position of its dB between the
smallest and the largest of the whole excerpt, in 256 equal steps. tests/benchmarks/array_mapping.py
compares audio with its published arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mgc_ray.data.audio import UnusableTrackError, Waveform
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.settings import Params

_VALUES = 256
_TOLERANCE = 30  # an excerpt is whole within a 30th: published clips called 30 s reach 30.4 s


class Excerpt(NamedTuple):
    """Where an array's audio begins, and how long its columns last, both in seconds."""

    start: float
    seconds_per_column: float
    columns: int


@dataclass(frozen=True)
class ArrayRecipe:
    """From audio to published arrays; `GTZAN_ARRAYS` is the one recipe that is known.

    A track is cut into excerpts, each drawn and scaled by itself. What remains at its end is an
    excerpt too, or, if shorter than a 30th of one (1 s), the end of the one before.
    """

    sample_rate: int  # Hz
    n_fft: int  # samples
    hop_length: int  # samples
    n_mels: int
    top_db: float  # what is further below an excerpt's loudest value is raised to there
    columns: int  # of a whole excerpt
    width: float  # in columns, of a whole excerpt's picture
    excerpt_seconds: float

    def arrays(self, waveform: Waveform) -> list[np.ndarray]:
        """A track's excerpts in their order, uint8 [bands, columns] each.

        Raises UnusableTrackError where the track is shorter than an FFT window.
        """
        count = self._count(waveform)
        if count < self.n_fft:
            raise UnusableTrackError(
                f"{waveform.seconds:.3f} s is shorter than one FFT window "
                f"({self.n_fft} samples at {self.sample_rate} Hz)"
            )
        samples = waveform.resampled(self.sample_rate)
        if len(samples) < count:  # one sample that resampling rounded away
            samples = np.resize(samples, count)
        spectrogram = self._log_mel
        decibel = (spectrogram.transform(samples[part]) for part in self._excerpts(count))
        return [scaled(one)[:, self.frames_of_columns(one.shape[1])] for one in decibel]

    def described(self) -> Params:
        """All that `arrays` does; see docs/onnx.md for a program that does the same."""
        whole, log_mel = self._excerpt_samples, self._log_mel.described("excerpt")
        tolerance = whole // _TOLERANCE
        return log_mel | {
            "excerpt_samples": whole,
            "tolerance_samples": tolerance,
            "frames_of_whole": self._frames(whole),
            "frames_of_nearly_whole": self._frames(whole - tolerance),
            "columns": self.columns,
            "picture_width": self.width,
            "values": _VALUES,
            "in_words": f"The song at {self.sample_rate} Hz is cut into excerpts of {whole} "
            f"samples; what remains is one too, or if shorter than {tolerance} samples the end of "
            f"the one before. Of each a log-mel spectrogram. {log_mel['in_words']} From it "
            f"{self.columns} columns: the frames of an excerpt that has at least "
            f"{self._frames(whole - tolerance)} share {self.width:g} columns, those of a shorter "
            f"one as if they were {self._frames(whole)}, and each whole column is the frame under "
            f"its middle, of two the earlier. Values become 0 to {_VALUES - 1}, in {_VALUES} equal "
            "steps from the excerpt's smallest to its largest dB.",
        }

    def frames_of_columns(self, frames: int) -> np.ndarray:
        """Which of an excerpt's frames its columns show, int [columns].

        All the picture's columns for an excerpt that is whole, or nearly (from 29 s of 30 s on),
        whose frames share the width; for a shorter one as many as a whole one has in that time.
        """
        middles = (np.arange(self.columns) + 0.5) * self._drawn(frames) / self.width
        shown = np.ceil(middles).astype(int) - 1  # on the border of two frames, the earlier
        return shown[shown < frames]

    def excerpts(self, waveform: Waveform) -> list[Excerpt]:
        """Where in a track its arrays are from."""
        found = []
        for part in self._excerpts(self._count(waveform)):
            frames = self._frames(part.stop - part.start)
            columns = len(self.frames_of_columns(frames))
            start = part.start / self.sample_rate
            found.append(Excerpt(start, self.seconds_per_column(frames), columns))
        return found

    def seconds_per_column(self, frames: int | None = None) -> float:
        """Of an excerpt of so many frames (default: of a whole one)."""
        drawn = self._frames(self._excerpt_samples) if frames is None else self._drawn(frames)
        return drawn * self.hop_length / self.sample_rate / self.width

    def _drawn(self, frames: int) -> int:
        """How many frames share the width of the picture of an excerpt."""
        whole = self._excerpt_samples
        nearly = self._frames(whole - whole // _TOLERANCE)
        return self._frames(whole) if frames < nearly else frames

    def _count(self, waveform: Waveform) -> int:
        """Samples of a track at the recipe's rate."""
        return int(len(waveform.samples) * self.sample_rate / waveform.sample_rate)

    @property
    def _log_mel(self) -> LogMel:
        return LogMel(
            sample_rate=self.sample_rate,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.n_mels,
            top_db=self.top_db,
        )

    @property
    def _excerpt_samples(self) -> int:
        return round(self.excerpt_seconds * self.sample_rate)

    def _frames(self, samples: int) -> int:
        return 1 + samples // self.hop_length

    def _excerpts(self, samples: int) -> Sequence[slice]:
        whole = self._excerpt_samples
        starts = list(range(0, samples, whole))
        if len(starts) > 1 and samples - starts[-1] < whole // _TOLERANCE:
            starts.pop()
        return [slice(start, end) for start, end in pairwise([*starts, samples])]


GTZAN_ARRAYS = ArrayRecipe(
    sample_rate=22050,
    n_fft=2048,
    hop_length=512,
    n_mels=128,
    top_db=80.0,
    columns=387,
    width=387.5,
    excerpt_seconds=30.0,
)


def scaled(decibel: np.ndarray) -> np.ndarray:
    """dB of any shape -> uint8: 256 equal steps from their smallest (0) to their largest (255).

    Where all are equal (an excerpt of silence), 0.
    """
    low = decibel.min()
    spread = decibel.max() - low
    if spread == 0:
        return np.zeros(decibel.shape, np.uint8)
    return np.minimum((decibel - low) / spread * _VALUES, _VALUES - 1).astype(np.uint8)
