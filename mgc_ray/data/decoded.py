"""A track as it was read from its file, cut into the chunks that features are computed of."""

import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import numpy as np

from mgc_ray.config import CHUNK_SECONDS
from mgc_ray.data.audio import UnusableTrackError, Waveform

T = TypeVar("T")

REFERENCE_RATE = 22_050  # Hz, at which the chunks of a track are counted
_SHORTEST = 1024  # samples at that rate, 46 ms: one FFT window


class DecodedTrack:
    """A decoded track cut into chunks; what several features need of it is computed once.

    Audio gives as many whole chunks as fit, and a track shorter than one is repeated up to one;
    see `FeatureSet.of` for one that is shorter than half a chunk.
    With `keep_end` the last chunk ends with the track where half a chunk or more would be lost.
    Exactly one of `waveform` and `array` (a `.npy` spectrogram [bands, frames]) is given.
    """

    def __init__(
        self,
        waveform: Waveform | None = None,
        array: np.ndarray | None = None,
        chunk_seconds: float = CHUNK_SECONDS,
        keep_end: bool = False,
    ) -> None:
        self.waveform, self.array = waveform, array
        self._chunk_seconds, self._keep_end = chunk_seconds, keep_end
        self._computed: dict[Hashable, Any] = {}

    @property
    def seconds(self) -> float:
        """Duration; NaN for arrays, whose frame rate is not known."""
        return self.waveform.seconds if self.waveform else float("nan")

    def content_hash(self) -> str:
        """The same for the same content, whatever the name, tags or lossless format."""
        if self.waveform:
            return self.waveform.content_hash()
        return hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest()

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is called for the first use of this key alone."""
        if key not in self._computed:
            self._computed[key] = compute()
        result: T = self._computed[key]
        return result

    def chunks(self, sample_rate: int) -> np.ndarray:
        """Waveforms float32 [chunks, samples] at a sample rate in Hz."""
        return self.once(("chunks", sample_rate), lambda: self._cut(sample_rate))

    def only_chunks(self, sample_rates: Iterable[int]) -> "DecodedTrack":
        """Its waveforms at these rates and nothing else, to be sent to another process."""
        alone = DecodedTrack()
        alone._computed = {("chunks", rate): self.chunks(rate) for rate in sample_rates}
        return alone

    @property
    def nbytes(self) -> int:
        """Bytes of what `only_chunks` has kept."""
        return sum(chunks.nbytes for chunks in self._computed.values())

    @property
    def times(self) -> np.ndarray:
        """Where each chunk starts and ends, in seconds, float64 [chunks, 2].

        A track shorter than a chunk ends before its chunk does.
        """
        count, ends_with_track = self._layout()
        starts = [chunk * self._chunk_seconds for chunk in range(count)]
        if ends_with_track:
            starts.append(self.seconds - self._chunk_seconds)
        return np.array([[start, start + self._chunk_seconds] for start in starts])

    def _layout(self) -> tuple[int, bool]:
        """How many whole chunks fit, at least one; whether another one ends with the track."""
        assert self.waveform
        # counted at one rate, so that all features have the same chunks
        counted = sample_count(self.waveform, REFERENCE_RATE, _SHORTEST)
        length = round(self._chunk_seconds * REFERENCE_RATE)
        count = max(1, counted // length)
        return count, self._keep_end and 2 * (counted - count * length) >= length

    def _cut(self, sample_rate: int) -> np.ndarray:
        count, ends_with_track = self._layout()
        assert self.waveform
        samples = self.waveform.resampled(sample_rate)
        length = round(self._chunk_seconds * sample_rate)
        starts = [chunk * length for chunk in range(count)]
        if ends_with_track:
            starts.append(len(samples) - length)
        needed = starts[-1] + length
        if len(samples) < needed:  # a short track, or one sample that resampling rounded away
            samples = np.resize(samples, needed)
        if len(starts) == count:
            return samples[:needed].reshape(count, length)
        return np.stack([samples[start : start + length] for start in starts])


def sample_count(waveform: Waveform, sample_rate: int, shortest: int) -> int:
    """How many samples a track has at a rate; UnusableTrackError where fewer than `shortest`."""
    samples = int(len(waveform.samples) * sample_rate / waveform.sample_rate)
    if samples < shortest:
        raise UnusableTrackError(
            f"{waveform.seconds:.3f} s is shorter than one FFT window "
            f"({shortest} samples at {sample_rate} Hz)"
        )
    return samples
