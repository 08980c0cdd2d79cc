"""Which tracks are the same recording, also in another format, at another level, or cut.

Each track gets an audio fingerprint: 24 bits for each 93 ms. A bit says whether the difference of
energy between two neighbouring bands grew or shrank within half a second, which lossy coding, level
and sample rate hardly change. Source: J. Haitsma, T. Kalker: A highly robust audio fingerprinting
system, ISMIR 2002; here with longer smoothing, so that fewer frames do.

Two tracks are copies where, at one offset, at most about a quarter of the bits differ in all the
time that they share; so half of a song in common is enough, a sampled intro is not. Other
recordings of a song (live, covers) differ in nearly half of the bits, as other songs do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from mgc_ray.data.decoded import DecodedTrack

_HOP = 0.0928  # seconds from frame to frame
_RATE = 2_800  # Hz, about what audio is reduced to: it has the bands below, and takes little time
_LOWEST, _HIGHEST = 250.0, 1_250.0  # Hz; all codecs keep what is between
_BITS = 24  # of a frame: one less than bands
_SMOOTHED = 6  # frames, about half a second
_WITHIN = 6  # frames in which a bit says what grew
_MOST_DIFFERENT = 0.28  # share of the bits; measured: copies up to 0.25, other songs from 0.34
_DEVIATIONS = 6  # that short tracks must be from chance, which is half of the bits
_NEIGHBOURS = 6  # tracks with one code that each track is compared with
_MOST_CODES = 2_000_000  # that are compared: bounds memory and time; a copy shares hundreds
_AROUND = (-18, -12, -6, 6, 12, 18)  # frames from an equal code, for a first look
_MOST_DIFFERENT_AROUND = 0.36  # share of their bits
_MOST_OFFSETS = 3  # that are tried for one pair


def fingerprint(track: DecodedTrack) -> np.ndarray:
    """One 24-bit code per 93 ms of audio, or per two frames of an array, uint32 [codes].

    Empty for what is too short (about a second) or an array of few bands. Silence has the code 0.
    """
    if track.waveform:
        energies = _energies(track.waveform.samples, track.waveform.sample_rate)
    else:
        assert track.array is not None
        energies = _bands_of_array(track.array)
    if len(energies) < _SMOOTHED + _WITHIN or energies.shape[1] <= _BITS:
        return np.zeros(0, np.uint32)
    smooth = sliding_window_view(energies, _SMOOTHED, axis=0) @ _window(_SMOOTHED)
    if track.waveform:  # arrays are in dB, or whatever their maker found useful
        smooth = np.log(smooth + 1e-12 * smooth.max() + 1e-20)
    difference = np.diff(smooth, axis=1)
    grew = difference[_WITHIN:] > difference[:-_WITHIN]
    codes: np.ndarray = grew @ (1 << np.arange(_BITS, dtype=np.uint32))
    return codes


def same_recordings(
    fingerprints: Mapping[str, np.ndarray], content_hashes: Mapping[str, str]
) -> dict[str, str]:
    """A name for each track's recording, the same for all copies; both arguments are by path."""
    paths = list(fingerprints)
    recording = {path: path for path in paths}

    def first(path: str) -> str:
        while recording[path] != path:
            recording[path] = path = recording[recording[path]]
        return path

    by_content: dict[str, str] = {}
    for path in paths:
        recording[first(path)] = first(by_content.setdefault(content_hashes[path], path))
    for one, other in _copies([fingerprints[path] for path in paths]):
        recording[first(paths[one])] = first(paths[other])
    return {path: content_hashes[first(path)] for path in paths}


def _copies(fingerprints: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of tracks that are copies, by number."""
    found = set[tuple[int, int]]()
    tried = Counter[tuple[int, int]]()
    for one, other, offset in _candidates(fingerprints):
        pair = one, other
        if pair not in found and tried[pair] < _MOST_OFFSETS:
            tried[pair] += 1
            if _agree(fingerprints[one], fingerprints[other], offset):
                found.add(pair)
    return sorted(found)


def _candidates(fingerprints: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    """Pairs of tracks that have a code in common, and by how many frames it is later in the first.

    Offsets that more codes speak for come first.
    """
    if not fingerprints:
        return []
    lengths = np.array([len(codes) for codes in fingerprints])
    starts = np.cumsum(lengths) - lengths
    codes = np.concatenate(fingerprints)
    track = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    chosen = np.flatnonzero(_are_compared(codes))
    # each track's first of equal codes, sorted by code and then by track
    key = codes[chosen].astype(np.int64) * len(lengths) + track[chosen]
    chosen = chosen[np.unique(key, return_index=True)[1]]
    found = []
    for distance in range(1, _NEIGHBOURS + 1):
        one, other = chosen[:-distance], chosen[distance:]
        equal = codes[one] == codes[other]
        one, other = one[equal], other[equal]
        similar = _are_similar_around(codes, track, one, other)
        found.append(np.stack([one[similar], other[similar]]))
    one, other = np.concatenate(found, axis=1)
    offset = (one - starts[track[one]]) - (other - starts[track[other]])
    candidates, count = np.unique(
        np.stack([track[one], track[other], offset], axis=1), axis=0, return_counts=True
    )
    best_first = np.argsort(-count, kind="stable")
    return [(i, j, offset) for i, j, offset in candidates[best_first].tolist()]


def _are_compared(codes: np.ndarray) -> np.ndarray:
    """Which codes are: all but silence's, or as many as can be.

    The choice depends on the code alone, so that it is the same in all copies.
    """
    share = min(1.0, _MOST_CODES / max(1, len(codes)))
    scattered = (codes * np.uint32(2_654_435_761)) >> np.uint32(16)  # Knuth's multiplicative hash
    return (codes != 0) & (scattered < share * 65_536)


def _are_similar_around(
    codes: np.ndarray, track: np.ndarray, one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Of pairs of equal codes, by place: whether the codes before and after are similar too."""
    different, compared = np.zeros(len(one), np.int64), np.zeros(len(one), np.int64)
    for frames in _AROUND:
        i = np.clip(one + frames, 0, len(codes) - 1)
        j = np.clip(other + frames, 0, len(codes) - 1)
        inside = (track[i] == track[one]) & (track[j] == track[other])
        different += np.bitwise_count(codes[i] ^ codes[j]) * inside
        compared += inside
    return different <= _MOST_DIFFERENT_AROUND * _BITS * compared


def _agree(one: np.ndarray, other: np.ndarray, offset: int) -> bool:
    """Whether two tracks agree in what they share, where one begins `offset` frames later."""
    for frames in (offset - 1, offset, offset + 1):
        i, j = one[max(0, frames) :], other[max(0, -frames) :]
        shared = min(len(i), len(j))
        i, j = i[:shared], j[:shared]
        sound = (i != 0) & (j != 0)
        independent_bits = _BITS * sound.sum() / _SMOOTHED
        if not independent_bits:
            continue
        different = np.bitwise_count(i[sound] ^ j[sound]).mean() / _BITS
        chance = 0.5 - _DEVIATIONS * 0.5 / np.sqrt(independent_bits)
        if different < min(_MOST_DIFFERENT, chance):
            return True
    return False


def _energies(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Energy per frame and band of audio, float32 [frames, 25]."""
    every = max(1, round(sample_rate / _RATE))
    # weighted sums of neighbouring samples weaken what is above the bands
    neighbours = samples[: len(samples) // every * every].reshape(-1, every)
    sums = neighbours @ _window(2 * every).reshape(2, every).T
    reduced = sums[:-1, 0] + sums[1:, 1]
    rate = sample_rate / every
    length = scipy.fft.next_fast_len(round(2 * _HOP * rate), real=True)
    if len(reduced) < length:
        return np.zeros((0, _BITS + 1), np.float32)
    count = 1 + int((len(reduced) - length) / (_HOP * rate))
    starts = np.round(np.arange(count) * _HOP * rate).astype(int)
    frames = sliding_window_view(reduced, length)[starts]
    frames *= _window(length)
    bins, filters = _bands(rate, length)
    spectra = scipy.fft.rfft(frames, axis=1, overwrite_x=True)[:, bins]
    energies: np.ndarray = (spectra.real**2 + spectra.imag**2) @ filters
    return energies


@cache
def _bands(rate: float, length: int) -> tuple[slice, np.ndarray]:
    """The bins of a spectrum that are used, and how much of each is in each band, [bins, 25]."""
    edges = np.geomspace(_LOWEST, _HIGHEST, _BITS + 2)
    width = rate / length
    bins = slice(int(_LOWEST / width), min(int(_HIGHEST / width) + 2, length // 2 + 1))
    centre = width * np.arange(bins.start, bins.stop)[:, None]
    upper = np.minimum(centre + width / 2, edges[1:])
    lower = np.maximum(centre - width / 2, edges[:-1])
    return bins, np.clip(upper - lower, 0, None).astype(np.float32)


@cache
def _window(length: int) -> np.ndarray:
    """Hann's, without the zeros at its ends, float32 [length]."""
    window: np.ndarray = np.hanning(length + 2)[1:-1].astype(np.float32)
    return window


def _bands_of_array(array: np.ndarray) -> np.ndarray:
    """25 bands of two frames each of an array [bands, frames], float32 [pairs, 25]."""
    edges = np.linspace(0, len(array), min(len(array), _BITS + 1) + 1).astype(int)
    pairs = array.shape[1] // 2
    both = array[:, : 2 * pairs].astype(np.float32).reshape(len(array), pairs, 2).sum(2)
    sums = np.add.reduceat(both, edges[:-1], axis=0)
    return (sums / np.diff(edges)[:, None]).T.astype(np.float32)
