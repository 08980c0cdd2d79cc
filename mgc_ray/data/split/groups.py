"""Groups: tracks that must stay together."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mgc_ray.data.artists import Artists, is_known
from mgc_ray.data.tracks import Track


def assign_groups(tracks: Sequence[Track], recordings: dict[str, str]) -> list[Track]:
    """Give each track its group: one for all tracks of one artist, recording, or earlier group.

    Artists are the same in any usual spelling, and who plays together is one group (see `Artists`).
    `recordings` are by path (see copies.py). Joining is transitive: two artists who share one
    recording are one group. A group is called after its first track's artist, else its earlier
    group or track_id.
    """
    parent = list(range(len(tracks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(i: int, j: int) -> None:
        earlier, later = sorted((root(i), root(j)))
        parent[later] = earlier

    artists, first_with = Artists(), dict[tuple[str, str], int]()
    for i, track in enumerate(tracks):
        artist = track.artist if is_known(track.artist) else ""
        if artist and ("artist", artist) not in first_with:
            for other in artists.all_same(artist):
                join(i, first_with["artist", other])
            artists.add(artist)
        for key in (
            ("artist", artist),
            ("recording", recordings.get(track.path, "")),
            ("group", track.group),
        ):
            if key[1]:
                join(i, first_with.setdefault(key, i))
    grouped = []
    for i, track in enumerate(tracks):
        first = tracks[root(i)]
        artist = first.artist if is_known(first.artist) else ""
        grouped.append(replace(track, group=artist or first.group or first.track_id))
    return grouped


def groups_on_several_sides(tracks: Iterable[Track]) -> list[str]:
    """Groups whose tracks are in more than one part; empty unless the table's own split leaks."""
    sides: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        sides[track.group].add(track.split)
    return sorted(group for group, splits in sides.items() if len(splits) > 1)
