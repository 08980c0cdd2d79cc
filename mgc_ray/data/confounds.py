"""What tells the genre of a track without its music: how the file was made.

Where all songs of a genre come from one collection, its sample rate or codec can be all that a
model learns. Such a model is right on the test part too, and wrong on music from elsewhere. So a
decision tree is trained on these properties alone, by the same groups as the split, and its
accuracy is reported beside the model's.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mgc_ray.data.audio import Waveform
from mgc_ray.data.tracks import Track

if TYPE_CHECKING:
    from mgc_ray.data.dataset import TrackPlace

_FRAME, _FRAMES = 4096, 16  # samples of a frame, and how many of a track are looked at
_AUDIBLE = 1e-8  # of the strongest frequency's power: -80 dB
_TOLD = 0.9  # F1 from which on a genre is told without its music
_FEWEST_TRACKS = 5  # of a genre, for that to mean something
_FOLDS = 5
_UNEVEN = 5  # times as many tracks in the largest genre as in the smallest


@dataclass(frozen=True)
class Properties:
    """How a track's file was made; those of arrays are not known."""

    sample_rate: int = 0  # Hz
    codec: str = ""  # with the bits per sample, e.g. WAV PCM_16
    channels: int = 0
    bandwidth: float = 0.0  # Hz, up to where there is something
    loudness: float = 0.0  # dB of full scale


@dataclass(frozen=True)
class Confounds:
    """What to know before the figures of a model are believed.

    `accuracy`: the share of tracks whose genre is told without music, out of fold, if known.
    """

    accuracy: float | None
    warnings: tuple[str, ...]


def properties_of(waveform: Waveform) -> Properties:
    """The properties of a decoded file."""
    import scipy.fft  # takes a third of a second, and commands refuse wrong options without it

    samples, rate = waveform.samples, waveform.sample_rate
    length = min(_FRAME, len(samples))
    starts = np.linspace(0, len(samples) - length, _FRAMES).astype(int)
    frames = np.stack([samples[start : start + length] for start in starts])
    spectra = scipy.fft.rfft(frames * np.hanning(length).astype(np.float32), axis=1)
    power = (spectra.real**2 + spectra.imag**2).sum(0)
    audible = np.flatnonzero(power > _AUDIBLE * power.max())
    highest = audible[-1] if len(audible) else 0
    mean_square = float(np.dot(samples, samples)) / len(samples)
    return Properties(
        sample_rate=rate,
        codec=waveform.codec,
        channels=waveform.channels,
        bandwidth=round(float(highest) * rate / length),
        loudness=round(10 * math.log10(max(mean_square, 1e-12)), 1),
    )


def find_confounds(tracks: Sequence[Track], places: Sequence["TrackPlace"]) -> Confounds:
    """What the properties of tracks tell of their genres; the test part is not looked at."""
    warnings = _uneven_genres(tracks)
    known = [i for i, t in enumerate(tracks) if t.genre and not t.added and t.split != "test"]
    tracks, places = [tracks[i] for i in known], [places[i] for i in known]
    folds = min([_FOLDS, *_groups_per_genre(tracks).values()])
    if folds < 2 or not tracks:
        return Confounds(None, tuple(warnings))
    genres = np.array([track.genre for track in tracks])
    columns = _columns(tracks, places)
    same_for_all = np.zeros((len(tracks), 1))  # where no property differs
    told = _told(np.hstack([same_for_all, *columns.values()]), genres, tracks, folds)
    for genre, count in sorted(Counter(genres.tolist()).items()):
        score = _f1(genres, told, genre)
        if score < _TOLD or count < _FEWEST_TRACKS:
            continue
        alone = [
            name
            for name, values in columns.items()
            if _f1(genres, _told(values, genres, tracks, folds), genre) >= _TOLD
        ]
        by = f"{' or '.join(alone)} alone" if alone else "together: " + ", ".join(columns)
        warnings.append(
            f"{genre!r} can be told from the other genres without its music, by how the files "
            f"were made ({by}; F1 {score:.2f} on {count} tracks): a model may learn that, and then "
            f"calls all such files {genre!r}. Convert all files alike, or add {genre!r} from other "
            "sources"
        )
    return Confounds(float((told == genres).mean()), tuple(warnings))


def _uneven_genres(tracks: Sequence[Track]) -> list[str]:
    sizes = Counter(track.genre for track in tracks if track.genre and not track.added)
    if not sizes:
        return []
    (most, largest), (least, smallest) = sizes.most_common()[0], sizes.most_common()[-1]
    if largest <= _UNEVEN * smallest:
        return []
    return [
        f"{most!r} has {largest} tracks and {least!r} only {smallest}: accuracy says little about "
        "small genres; see macro-F1 and the scores of each genre"
    ]


def _groups_per_genre(tracks: Sequence[Track]) -> Counter[str]:
    return Counter(genre for genre, _ in {(track.genre, track.group) for track in tracks})


def _columns(tracks: Sequence[Track], places: Sequence["TrackPlace"]) -> dict[str, np.ndarray]:
    """The properties that differ between tracks, by name, each [tracks, values]."""
    properties = [place.properties for place in places]
    numbers = {
        "sample rate": [p.sample_rate for p in properties],
        "channels": [p.channels for p in properties],
        "bandwidth": [p.bandwidth for p in properties],
        "loudness": [p.loudness for p in properties],
        "length": [p.chunks if math.isnan(p.seconds) else p.seconds for p in places],
    }
    names = {"codec": [p.codec for p in properties], "source folder": _sources(tracks)}
    columns = {name: np.array(values, float)[:, None] for name, values in numbers.items()}
    for name, values in names.items():
        different = sorted(set(values))
        columns[name] = np.array([[value == one for one in different] for value in values], float)
    return {name: values for name, values in columns.items() if (values != values[0]).any()}


def _sources(tracks: Sequence[Track]) -> list[str]:
    """The topmost folder that differs, where it is a collection and not a genre's own."""
    folders = [os.path.dirname(track.path) for track in tracks]
    common = os.path.commonpath(folders)
    sources = [os.path.relpath(folder, common).split(os.sep)[0] for folder in folders]
    # with a folder per genre, or per artist, folders tell the genre whatever the music
    return (
        sources
        if len(set(sources)) < len({track.genre for track in tracks})
        else [""] * len(sources)
    )


def _told(
    values: np.ndarray, genres: np.ndarray, tracks: Sequence[Track], folds: int
) -> np.ndarray:
    """The genre that a tree takes each track for which was trained on other groups."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=8, class_weight="balanced", random_state=0)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    groups = [track.group for track in tracks]
    told: np.ndarray = cross_val_predict(tree, values, genres, groups=groups, cv=split)
    return told


def _f1(genres: np.ndarray, told: np.ndarray, genre: str) -> float:
    right = int(((genres == genre) & (told == genre)).sum())
    return 2 * right / max(1, int((genres == genre).sum() + (told == genre).sum()))
