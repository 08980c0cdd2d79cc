"""Tracks for tests of the split."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from mgc_ray.data.tracks import Track, TrackTable

GENRES = ("blues", "jazz", "rock")


def tracks_of(counts: dict[str, int], **fields: str) -> list[Track]:
    """This many tracks of each genre, each by an artist of its own."""
    return [
        Track(f"/music/{genre}/{i}.wav", genre, f"{genre}.{i}", **fields)
        for genre, count in counts.items()
        for i in range(count)
    ]


def table_of(tracks: Sequence[Track]) -> TrackTable:
    return TrackTable(Path("tracks.csv"), list(tracks), [])


def of_artists(sizes: dict[str, Sequence[int]]) -> list[Track]:
    """Tracks of artists who play one genre each; `sizes`: how many tracks each artist has."""
    return [
        Track(f"{genre}-{a}-{i}.wav", genre, f"{genre}-{a}-{i}", f"{genre} {a}", f"{genre} {a}")
        for genre, artists in sizes.items()
        for a, count in enumerate(artists)
        for i in range(count)
    ]


def sides_of_groups(tracks: Iterable[Track]) -> dict[str, set[str]]:
    sides = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sides
