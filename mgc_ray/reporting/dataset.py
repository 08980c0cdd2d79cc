"""What the page shows of a search's dataset: where it is from, how it was split, what was left out.

All of it is read from the dataset beside the search, and is missing where that is not at hand.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.artists import is_known
from mgc_ray.data.dataset import (
    TrackPlace,
    read_dataset_tracks,
    read_info,
    read_skipped,
)
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Track
from mgc_ray.reporting.table import Table, first_of
from mgc_ray.results import SearchResult
from mgc_ray.terminal.command import count_of

_LISTED = 50  # files that were left out
_ALL = "all"

Tracks = list[tuple[Track, TrackPlace]]


def _folder(result: SearchResult) -> Path:
    """The dataset beside the search; never the path that search.json names.

    A report may be of somebody else's search, and is passed on.
    """
    return result.folder.parent / "datasets" / Path(result.dataset).name


def read_tracks(result: SearchResult) -> Tracks:
    """The tracks of the search's dataset; [] where it is not at hand, or was made again since."""
    try:
        info = read_info(_folder(result))
        if not result.dataset or info.split_id != result.split_id:
            return []
        return list(zip(*read_dataset_tracks(_folder(result)), strict=True))
    except RequestError:
        return []


def read_warnings(result: SearchResult) -> tuple[str, ...]:
    """What to know of the data before figures are believed."""
    if result.ensemble:
        return result.ensemble.warnings
    try:
        return read_info(_folder(result)).warnings if result.dataset else ()
    except RequestError:
        return ()


def facts(result: SearchResult, tracks: Tracks) -> Iterator[tuple[str, str]]:
    """(what, in words)."""
    yield "from", result.tracks
    if tracks:
        hours = sum(place.seconds for _, place in tracks) / 3600
        length = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
        artists = len(_artists([track for track, _ in tracks]))
        by = f" by {count_of(artists, 'artist')}" if artists else ""
        yield "tracks", f"{len(tracks)}{by}, {length}"
        yield from _kept_together(tracks)
        added = sum(track.added for track, _ in tracks)
        if added:
            yield "added to the training part", count_of(added, "track")
        lost = sum(place.lost_seconds > 0 for _, place in tracks)
        if lost:
            yield (
                "damaged or very long",
                f"{count_of(lost, 'track')}, of which the rest is used",
            )
    yield "features", ", ".join(result.config.dataset.features)


def _kept_together(tracks: Tracks) -> Iterator[tuple[str, str]]:
    copies = Counter(place.recording for _, place in tracks)
    several = [count for count in copies.values() if count > 1]
    if several:
        yield (
            "copies",
            f"{count_of(len(several), 'recording')} in {count_of(sum(several), 'track')}; each "
            "counts as one group",
        )


def split_table(rows: Sequence[Track]) -> Table | None:
    """Tracks and artists of each genre in each part, as `64 (52)`; None where there are none."""
    if not rows:
        return None
    parts = [part for part in PARTS if any(track.split == part for track in rows)]
    known = bool(_artists(rows))

    def cells(genre: str, of_genre: Sequence[Track]) -> tuple[str, ...]:
        columns = [[track for track in of_genre if track.split == part] for part in parts]
        return genre, *(_cell(column, known) for column in [*columns, of_genre])

    genres = sorted({track.genre for track in rows})
    caption = "Tracks of each genre in each part"
    if known:
        unknown = sum(not is_known(track.artist) for track in rows)
        caption += "; in brackets, of how many artists"
        caption += f" ({count_of(unknown, 'track')} of unknown artist)" if unknown else ""
    return Table(
        caption,
        ("genre", *parts, _ALL),
        [
            *(cells(genre, [track for track in rows if track.genre == genre]) for genre in genres),
            cells(_ALL, rows),
        ],
    )


def _cell(tracks: Sequence[Track], known: bool) -> str:
    return f"{len(tracks)} ({len(_artists(tracks))})" if known else str(len(tracks))


def _artists(tracks: Sequence[Track]) -> set[str]:
    """Groups, so that spellings of one artist count once."""
    return {track.group for track in tracks if is_known(track.artist)}


def skipped_files(result: SearchResult) -> tuple[Table, Table] | None:
    """Why files were left out of the dataset, and which; None where the dataset is not at hand."""
    files = read_skipped(_folder(result)) if result.dataset else []
    if not files:
        return None
    reasons = Counter(file.reason for file in files).most_common(_LISTED)
    return (
        Table(
            f"Why {count_of(len(files), 'file')} cannot be used",
            ("reason", "files"),
            [(reason, str(count)) for reason, count in reasons],
        ),
        Table(
            f"{count_of(len(files), 'file')}{first_of(_LISTED, files)}",
            ("file", "reason"),
            [(file.path, file.reason) for file in files[:_LISTED]],
        ),
    )
