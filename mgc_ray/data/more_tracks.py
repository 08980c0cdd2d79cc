"""Tables that are filtered by artist: music added to the training part, artists who are left out.

`--more-tracks` adds labelled music to the training part. More artists help more than anything else
where a genre has few, but no figure may depend on whose music that is: these tracks are never
validated or tested on, are in no fold, and those by an artist of the main table, or of a recording
in it, are left out.
"""

from collections.abc import Iterable
from dataclasses import replace

from mgc_ray import RequestError
from mgc_ray.data.artists import Artists
from mgc_ray.data.tags import with_artists
from mgc_ray.data.tracks import (
    USUAL_NAMES,
    ColumnNames,
    Skipped,
    Track,
    TrackTable,
    read_artists,
    read_tracks,
    with_one_spelling,
)


def read_more_tracks(source: str, main: TrackTable, names: ColumnNames = USUAL_NAMES) -> TrackTable:
    """The tracks of a folder or table that may be added to `main`; the others as skipped.

    `names`: of the columns of `main`, which this table may have too. Each track has an id that no
    track of `main` has. Raises RequestError for what cannot be a track table, for arrays where
    `main` is audio or vice versa, and where no track is left.
    """
    names = replace(names, needed=False)
    table = with_artists(read_tracks(source, names=names, option="--more-tracks"))
    table = with_one_spelling(table, main.genres)
    if table.tracks[0].is_array != main.tracks[0].is_array:
        kind = ".npy spectrograms" if main.tracks[0].is_array else "audio"
        raise RequestError(
            f"--more-tracks must be {kind} as --tracks are, but {source} begins with "
            f"{table.tracks[0].path}: give another table"
        )
    genres, known = set(main.genres), Artists(track.artist for track in main.tracks)
    tracks, skipped = [], list(table.skipped)
    for track in table.tracks:
        same = known.same(track.artist)
        if track.genre not in genres:
            skipped.append(Skipped(track.path, f"no genre {track.genre!r} in --tracks"))
        elif same:
            reason = f"its artist {track.artist!r} is in --tracks as {same!r}"
            skipped.append(Skipped(track.path, reason))
        else:
            tracks.append(replace(track, track_id=f"more:{track.track_id}", split="", added=True))
    if not tracks:
        raise RequestError(
            f"--more-tracks {source} has no track that could be added to the training part, e.g. "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    return replace(table, tracks=tracks, skipped=skipped)


def new_recordings(
    tracks: Iterable[Track], recordings: dict[str, str], main: Iterable[Track]
) -> tuple[list[Track], list[Skipped]]:
    """Leave out recordings that are in `main`, or earlier among `tracks`; by path."""
    known = {recordings[track.path]: track.path for track in main}
    kept, skipped = [], []
    for track in tracks:
        first = known.setdefault(recordings[track.path], track.path)
        if first == track.path:
            kept.append(track)
        else:
            skipped.append(Skipped(track.path, f"the same recording as {first}"))
    return kept, skipped


def exclude_artists(table: TrackTable, source: str, names: ColumnNames = USUAL_NAMES) -> TrackTable:
    """The table without tracks by the artists in another's column `artist`; these as skipped.

    For weights that are to be tested on those artists' music. Raises RequestError for a file
    without artists, and where no track is left.
    """
    listed, notes = read_artists(source, replace(names, needed=False))
    unwanted = Artists(listed)
    tracks, skipped = [], list(table.skipped)
    for track in table.tracks:
        same = unwanted.same(track.artist)
        if same:
            reason = f"its artist {track.artist!r} is in --exclude-artists as {same!r}"
            skipped.append(Skipped(track.path, reason))
        else:
            tracks.append(track)
    if not tracks:
        raise RequestError(
            f"--exclude-artists {source} leaves no track of {table.source}: give another table"
        )
    return replace(table, tracks=tracks, skipped=skipped, notes=(*table.notes, *notes))
