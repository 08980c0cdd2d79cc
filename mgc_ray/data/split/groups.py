"""Groups: tracks that must stay together."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mgc_ray.data.tracks import Track


def assign_groups(tracks: Sequence[Track], content_hashes: dict[str, str]) -> list[Track]:
    """Give each track its group: one for all tracks of one artist, content, or earlier group.

    `content_hashes` are by path. Joining is transitive: two artists who share one recording are one
    group. A group is called after its first track's artist, else its earlier group or track_id.
    """
    parent = list(range(len(tracks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first_with: dict[tuple[str, str], int] = {}
    for i, track in enumerate(tracks):
        for key in (
            ("artist", artist_key(track)),
            ("content", content_hashes.get(track.path, "")),
            ("group", track.group),
        ):
            if key[1]:
                earlier, later = sorted((root(i), root(first_with.setdefault(key, i))))
                parent[later] = earlier
    grouped = []
    for i, track in enumerate(tracks):
        first = tracks[root(i)]
        grouped.append(replace(track, group=first.artist or first.group or first.track_id))
    return grouped


def artist_key(track: Track) -> str:
    """The artist without differences in case and spaces, "" where it is not known."""
    return " ".join(track.artist.casefold().split())


def groups_on_several_sides(tracks: Iterable[Track]) -> list[str]:
    """Groups whose tracks are in more than one part; empty unless the table's own split leaks."""
    sides: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sorted(group for group, splits in sides.items() if len(splits) > 1)
