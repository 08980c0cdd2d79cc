"""The track tables of a dataset, read once and checked against its configuration.

Some settings are for audio only and some for `.npy` arrays only; one that is given for the wrong
kind of table is refused, as it would otherwise be ignored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig, EvaluateConfig
from mgc_ray.data.features import FeatureSet, audio_features, named_features
from mgc_ray.data.features.array import RECIPES, Array, array_shape, is_transposed
from mgc_ray.data.more_tracks import exclude_artists, read_more_tracks
from mgc_ray.data.names import one_line
from mgc_ray.data.split.folds import parse_fold
from mgc_ray.data.split.protocols import (
    BY_ARTIST,
    check_table,
    drop_small_genres,
    with_published_facts,
)
from mgc_ray.data.tags import with_artists
from mgc_ray.data.tracks import ColumnNames, Skipped, Track, TrackTable, read_tracks
from mgc_ray.settings import as_json
from mgc_ray.terminal.command import console, count_of

_REASONS_SHOWN = 5
_LEAVE = "leave it out"
_LAYOUTS = {"bands-frames": False, "frames-bands": True}


@dataclass(frozen=True)
class Tables:
    """What a dataset is made of: its tracks, those added to the training part, the features.

    `listing` changes with every row, and with each file's size and time of change.
    """

    config: DatasetConfig
    main: TrackTable
    more: TrackTable | None
    features: FeatureSet
    listing: str

    @property
    def tracks(self) -> list[Track]:
        return [*self.main.tracks, *self.added]

    @property
    def added(self) -> list[Track]:
        return self.more.tracks if self.more else []

    @property
    def skipped(self) -> list[Skipped]:
        return [*self.main.skipped, *(self.more.skipped if self.more else ())]

    @property
    def no_audio(self) -> Counter[str]:
        """How many files of the folders are no audio, by ending."""
        return self.main.no_audio + (self.more.no_audio if self.more else Counter())

    @property
    def notes(self) -> list[str]:
        """Which genres there are, and what is done with the split, for whoever gave the tables."""
        notes = []
        if any(track.split for track in self.main.tracks):
            protocol = self.config.protocol
            used = "is used" if protocol == "given" else "is not used (--protocol given would)"
            if protocol in (*BY_ARTIST, "given", "random-chunks"):
                notes.append(f"the split of {self.main.source.name} {used}: --protocol {protocol}")
        for feature in self.features.columns.values():
            if isinstance(feature, Array) and feature.transposed:
                notes.append(f"the arrays are [frames, bands], with {feature.bands} bands")
        return [one for one in (self.main.genres_in_words(), *notes) if one]

    @property
    def key(self) -> str:
        """Eight characters that change with the tables, their files and all settings."""
        config = replace(
            self.config,
            tracks="",
            path_column="",
            genre_column="",
            artist_column="",
            split_column="",
            more_tracks="",
            exclude_artists="",
            features=(),
        )
        settings: list[Any] = [self.listing, as_json(config), self.features.to_json()]
        if self.config.synthetic:
            from mgc_ray.corpus.composer import VERSION

            settings.append(VERSION)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def check_config(config: DatasetConfig) -> None:
    """Refuse settings that do not go together, whatever the tracks are."""
    if config.protocol == "cross-validation":
        parse_fold(config.fold)
    elif config.fold:
        raise RequestError(
            f"--fold {config.fold} is for --protocol cross-validation, but the protocol is "
            f"{config.protocol}: leave it out, or add --protocol cross-validation"
        )
    if not config.labelled:
        adds = "adds tracks of known genres, but --protocol unlabelled ignores genres"
        labelled = "is for labelled tracks, but --protocol unlabelled ignores genres and splits"
        for given, what, why in (
            (config.synthetic, f"dataset.synthetic={config.synthetic}", adds),
            (config.more_tracks, f"--more-tracks {config.more_tracks}", adds),
            (config.genre_column, f"--genre-column {config.genre_column}", labelled),
            (config.split_column, f"dataset.split_column={config.split_column}", labelled),
            (config.drop_small_genres, "--drop-small-genres", labelled),
        ):
            if given:
                raise RequestError(f"{what} {why}: leave it out")
    audio_features(config)  # refuses what cannot be computed


def read_tables(config: DatasetConfig) -> Tables:
    """Read and check the tracks; RequestError for what no content of their files could mend."""
    config = replace(config, features=named_features(config.features))
    check_config(config)
    names = column_names(config)
    table = read_tracks(config.tracks, config.labelled, names)
    print_notes(table)
    _check_there(table)
    table = with_artists(table)
    if config.exclude_artists:
        printed = len(table.notes)
        table = exclude_artists(table, config.exclude_artists, names)
        print_notes(table, printed)
    if config.drop_small_genres:
        before = len(table.skipped)
        table = drop_small_genres(table, config.protocol)
        report_left_out(table.skipped[before:])
    check_table(table, config.protocol, config.fold)
    _check_kind(config, table)
    _check_synthetic(config, table)
    more = None
    if config.more_tracks:
        known = table
        if config.protocol == "fault-filtered":  # whose artists need not be in the table
            known = replace(table, tracks=with_published_facts(table.tracks)[0])
        more = read_more_tracks(config.more_tracks, known, names)
        print_notes(more)
        _check_there(more)
    is_array = table.tracks[0].is_array
    features = array_features(table.tracks, config) if is_array else audio_features(config)
    # absolute, so that messages and models say what it was, whatever the working folder is
    sources = str(table.source), str(more.source) if more else ""
    config = replace(config, tracks=sources[0], more_tracks=sources[1])
    return Tables(config, table, more, features, _listing(table, more))


def column_names(config: DatasetConfig | EvaluateConfig) -> ColumnNames:
    """The names of a table's columns that a configuration gives."""
    return ColumnNames(
        config.path_column, config.genre_column, config.artist_column, config.split_column
    )


def print_notes(table: TrackTable, start: int = 0) -> None:
    """Print what is assumed of a table, a line each, from the number `start` on."""
    for note in table.notes[start:]:
        console.print(one_line(note))


def _check_there(table: TrackTable) -> None:
    """Refuse a table of which no file is there: it is in another folder than its paths are of."""
    if table.source.is_dir() or any(os.path.exists(track.path) for track in table.tracks):
        return
    raise RequestError(
        f"none of the {count_of(len(table.tracks), 'file')} that {table.source} lists is there, "
        f"the first: {table.tracks[0].path}; paths are relative to the table's folder: move the "
        "table there, or correct the paths"
    )


def report_left_out(skipped: Sequence[Skipped]) -> None:
    """Print why tracks are left out, the most common reasons."""
    for reason, count in Counter(one.reason for one in skipped).most_common(_REASONS_SHOWN):
        console.print(one_line(f"{count_of(count, 'track')} left out: {reason}"))


def array_features(tracks: Sequence[Track], config: DatasetConfig) -> FeatureSet:
    """Chunks of the most common size among the arrays that can be read.

    Raises RequestError where it cannot be known which of their dimensions is that of the bands.
    """
    shapes: Counter[tuple[int, int]] = Counter()
    types = set()
    for track in tracks:
        header = array_shape(track.path)
        if header:
            shapes[header[0]] += 1
            types.add(header[1])
    if not shapes:
        raise RequestError("none of the table's arrays can be read: expected .npy [bands, frames]")
    transposed = _LAYOUTS.get(config.array_layout, is_transposed(shapes))
    bands, frames = shapes.most_common(1)[0][0]
    if transposed is None:
        raise RequestError(
            f".npy arrays hold [bands, frames], but most of these are {bands} x {frames}, which "
            "may also be [frames, bands]: say which they are by --set dataset.array_layout="
            "bands-frames or frames-bands"
        )
    if transposed:
        bands, frames = frames, bands
    if config.chunks_per_track > frames:
        raise RequestError(
            f"--chunks-per-track must be at most the frames of most arrays, but it is "
            f"{config.chunks_per_track} and they have {frames}: give a smaller number"
        )
    feature = Array(
        bands=bands,
        frames=max(1, frames // config.chunks_per_track),
        value_type="uint8" if types == {np.dtype(np.uint8)} else "float32",
        recipe=RECIPES.get(config.array_recipe),
        transposed=transposed,
    )
    return FeatureSet({"array": feature})


def _check_kind(config: DatasetConfig, table: TrackTable) -> None:
    """Refuse settings of audio for arrays, and the other way round."""
    for_audio = {  # what each setting does, and the remedy
        "features": (f"--features {' '.join(config.features)} is computed from audio", _LEAVE),
        "chunk_seconds": (
            f"--chunk-seconds {config.chunk_seconds:g} cuts audio",
            "cut them by --chunks-per-track N",
        ),
    }
    if not config.array_recipe:
        for_audio["synthetic"] = (
            f"dataset.synthetic={config.synthetic} makes audio",
            f"say how they were made (--set dataset.array_recipe={'|'.join(RECIPES)}), or {_LEAVE}",
        )
    for_arrays = {
        "chunks_per_track": (
            f"--chunks-per-track {config.chunks_per_track} cuts .npy spectrograms",
            "cut it by --chunk-seconds S",
        ),
        "array_layout": (
            f"dataset.array_layout={config.array_layout} says what .npy spectrograms hold",
            _LEAVE,
        ),
        "array_recipe": (
            f"dataset.array_recipe={config.array_recipe} says how .npy spectrograms were made",
            _LEAVE,
        ),
    }
    is_array, default = table.tracks[0].is_array, DatasetConfig()
    for name, (what, remedy) in (for_audio if is_array else for_arrays).items():
        if getattr(config, name) != getattr(default, name):
            kind = ".npy spectrograms" if is_array else "audio"
            raise RequestError(f"{what}, but the tracks are {kind}: {remedy}")


def _check_synthetic(config: DatasetConfig, table: TrackTable) -> None:
    if not config.synthetic:
        return
    from mgc_ray.corpus.genre_rules import GENRE_RULES

    unknown = sorted(set(table.genres) - set(GENRE_RULES))
    if unknown:
        raise RequestError(
            f"dataset.synthetic makes music of the genres {', '.join(sorted(GENRE_RULES))}, but "
            f"the table has {', '.join(unknown)}: rename its genres where they are the same, or "
            "leave it out"
        )


def _listing(table: TrackTable, more: TrackTable | None) -> str:
    """A hash of the rows and of each file's size and time of change; no file is opened."""
    digest = hashlib.sha256()
    for track in [*table.tracks, *(more.tracks if more else ())]:
        try:
            status = os.stat(track.path)
            size, changed = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            size, changed = -1, -1
        digest.update(repr((asdict(track), size, changed)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
