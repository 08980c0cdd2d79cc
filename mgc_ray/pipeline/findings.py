"""What was found in the music of a dataset: printed, refused, or a warning beside its figures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from mgc_ray import RequestError
from mgc_ray.data.artists import is_known
from mgc_ray.data.dataset import DatasetInfo, TrackPlace
from mgc_ray.data.features import TOO_SHORT
from mgc_ray.data.names import one_line
from mgc_ray.data.split.groups import groups_on_several_sides
from mgc_ray.data.split.protocols import BY_ARTIST
from mgc_ray.data.split.words import PARTS
from mgc_ray.data.tracks import Skipped, Track
from mgc_ray.data.walk import no_audio_in_words
from mgc_ray.pipeline.tables import Tables
from mgc_ray.reporting.dataset import split_table
from mgc_ray.terminal.command import console, count_of

_GENRES_SHOWN = 30


def check_genres(
    folder: Path, tables: Tables, places: Mapping[str, TrackPlace], unusable: Sequence[Skipped]
) -> None:
    """A genre all of whose tracks are unusable must not vanish unnoticed."""
    usable = {track.genre for track in tables.main.tracks if track.path in places}
    for genre in sorted(set(tables.main.genres) - usable):
        paths = {track.path for track in tables.main.tracks if track.genre == genre}
        reasons = [one.reason for one in unusable if one.path in paths]
        text = (
            f"genre {genre!r} has no usable track: the reasons are in {folder / 'skipped.csv'}, "
            f"the first is: {reasons[0]}"
        )
        if tables.config.drop_small_genres:
            console.print(f"{text}; it is left out", style="yellow")
            continue
        remedy = "add tracks, remove the genre, or leave out all that are too small by"
        if all(TOO_SHORT in reason for reason in reasons):
            is_array = tables.main.tracks[0].is_array
            option = "a larger --chunks-per-track" if is_array else "a smaller --chunk-seconds"
            remedy = f"give {option}, {remedy}"
        raise RequestError(f"{text}; {remedy} --drop-small-genres")


def report_skipped(folder: Path, skipped: Sequence[Skipped], no_audio: Counter[str]) -> None:
    if no_audio:
        console.print(no_audio_in_words(no_audio))
    if not skipped:
        return
    console.print(f"{len(skipped)} of the files are left out (all in {folder / 'skipped.csv'}):")
    for item in skipped[:5]:
        console.print(one_line(f"  {item.path}: {item.reason}"))


def report_damage(folder: Path, places: Mapping[str, TrackPlace]) -> None:
    damaged = {path: place for path, place in places.items() if place.lost_seconds}
    if not damaged:
        return
    console.print(
        f"{count_of(len(damaged), 'track')} of damaged or very long files, of which the rest is "
        f"used (all in the column lost_seconds of {folder / 'tracks.parquet'}):"
    )
    for path, place in list(damaged.items())[:5]:
        lost, total = place.lost_seconds, place.seconds + place.lost_seconds
        console.print(one_line(f"  {path}: {lost:.1f} of {total:.1f} s are lost"))


def report_copies(folder: Path, tracks: Sequence[Track], recordings: Mapping[str, str]) -> None:
    by_recording: dict[str, list[Track]] = {}
    for track in tracks:
        by_recording.setdefault(recordings[track.path], []).append(track)
    copies = [same for same in by_recording.values() if len(same) > 1]
    if not copies:
        return
    console.print(
        f"{count_of(len(copies), 'recording')} that the table has several times, also cut or in "
        f"another format ({count_of(sum(map(len, copies)), 'track')}); each counts as one group "
        f"(all in the column recording of {folder / 'tracks.parquet'}):"
    )
    for first, *others in copies[:5]:
        same = ", ".join(track.path for track in others)
        console.print(one_line(f"  {first.path} = {same}"))


def report_split(tracks: Sequence[Track]) -> None:
    """A table of the tracks and artists of each genre in each part; none where chunks are split."""
    if any(track.split not in PARTS for track in tracks):
        return
    found = split_table(tracks)
    if not found:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    first, *parts = found.head
    table.add_column(first, overflow="fold")
    for part in parts:
        table.add_column(part, justify="right")
    *genres, everything = found.rows
    shown = genres if len(genres) <= _GENRES_SHOWN else genres[: _GENRES_SHOWN - 1]
    for row in shown:
        table.add_row(*map(one_line, row))
    if len(shown) < len(genres):
        table.add_row(f"{len(genres) - len(shown)} other genres")
    table.add_row(*everything)
    console.print(f"{found.caption}:")
    console.print(table)


def split_warnings(
    tracks: Sequence[Track], recordings: Mapping[str, str], info: DatasetInfo
) -> Iterator[str]:
    """Why figures on the split may not mean what they seem to; `recordings`: that of each path."""
    yield from _unknown_artists(tracks, info)
    yield from _weak_split(tracks, info)
    yield from _contradictions(tracks, recordings)


def _contradictions(tracks: Sequence[Track], recordings: Mapping[str, str]) -> Iterator[str]:
    """Where one recording has two genres: nothing can learn both."""
    first: dict[str, Track] = {}
    contradicting = [
        (track, other)
        for track in tracks
        if not track.added
        and (other := first.setdefault(recordings[track.path], track)).genre != track.genre
    ]
    if contradicting:
        (track, other), *more = contradicting
        other_ones = f", and {count_of(len(more), 'more such track')}" if more else ""
        yield (
            f"{track.path} is the same recording as {other.path}, but their genres are "
            f"{track.genre!r} and {other.genre!r}"
            f"{other_ones}: correct them"
        )


def _unknown_artists(tracks: Sequence[Track], info: DatasetInfo) -> Iterator[str]:
    if info.protocol in BY_ARTIST and not any(is_known(track.artist) for track in tracks):
        yield (
            "no artist is known, so songs of one artist may be in training and in test, and "
            "figures are too high for new artists: tag the files, sort them as "
            "GENRE/ARTIST/ALBUM/SONG, or give a CSV with a column artist"
        )


def _weak_split(tracks: Sequence[Track], info: DatasetInfo) -> Iterator[str]:
    """Where figures on the split will not mean what they seem to."""
    if both := groups_on_several_sides(tracks):  # not drawn here, but given or published
        whose = "published" if info.protocol == "fault-filtered" else "table's own"
        yield (
            f"groups on several sides of the {whose} split: {len(both)}, e.g. {both[0]!r} (artists "
            "who play together, or one recording twice), so its figures are too high"
        )
    if info.protocol == "cross-validation":
        tested = {track.genre for track in tracks if track.split == "test"}
        for genre in sorted({track.genre for track in tracks} - tested):
            yield (
                f"the test part of fold {info.fold} has no track of {genre!r}, which has fewer "
                "groups (artists) than there are folds: this fold's figures leave that genre out"
            )
