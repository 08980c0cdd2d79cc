"""Music added to the training part, and artists who are left out."""

from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.more_tracks import exclude_artists, new_recordings, read_more_tracks
from mgc_ray.data.tracks import Track, TrackTable, read_tracks

MAIN = TrackTable(
    Path("main.csv"),
    [
        Track("a.wav", "rock", "a", "Johnny Cash"),
        Track("b.wav", "jazz", "b", "The Who"),
        Track("c.wav", "jazz", "c", ""),
    ],
    [],
)


def _more(tmp_path: Path, *rows: str) -> str:
    path = tmp_path / "more.csv"
    path.write_text("\n".join(["path,genre,track_id,artist", *rows]))
    return str(path)


def test_tracks_of_known_artists_and_of_other_genres_are_left_out(tmp_path: Path) -> None:
    source = _more(
        tmp_path,
        "x.wav,rock,x,Somebody",
        'y.wav,rock,y,"Cash, Johnny"',
        "z.wav,polka,z,Nobody",
        "a.wav,jazz,a,",
    )
    table = read_more_tracks(source, MAIN)
    assert [(track.track_id, track.genre) for track in table.tracks] == [
        ("more:x", "rock"),
        ("more:a", "jazz"),
    ]
    assert all(track.added for track in table.tracks)
    assert [skipped.reason for skipped in table.skipped] == [
        "its artist 'Cash, Johnny' is in --tracks as 'Johnny Cash'",
        "no genre 'polka' in --tracks",
    ]


def test_the_split_of_an_added_table_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("path,genre,split\nx.wav,rock,test\n")
    assert read_more_tracks(str(path), MAIN).tracks[0].split == ""


def test_added_arrays_are_refused_where_the_tracks_are_audio(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"--more-tracks must be audio as --tracks are, but .*x\.npy: give"
    ):
        read_more_tracks(_more(tmp_path, "x.npy,rock,x,"), MAIN)


def test_a_table_without_a_track_to_add_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no track that could be added.*no genre 'polka'"):
        read_more_tracks(_more(tmp_path, "x.wav,polka,x,"), MAIN)


def test_recordings_that_are_known_already_are_left_out() -> None:
    more = [Track(name, "rock", name) for name in ("x.wav", "y.wav", "z.wav")]
    hashes = {"a.wav": "1", "x.wav": "1", "y.wav": "2", "z.wav": "2"}
    kept, skipped = new_recordings(more, hashes, MAIN.tracks[:1])
    assert [track.path for track in kept] == ["y.wav"]
    assert [s.reason for s in skipped] == [
        "the same recording as a.wav",
        "the same recording as y.wav",
    ]


def test_tracks_by_excluded_artists_are_left_out(tmp_path: Path) -> None:
    unwanted = tmp_path / "unwanted.csv"
    unwanted.write_text("track_id,artist,note\nx,Johnny Cash,\ny,,\n")
    table = tmp_path / "tracks.csv"
    table.write_text('path,artist\na.wav,"Cash, Johnny"\nb.wav,The Who\nc.wav,\n')
    read = exclude_artists(read_tracks(table, labelled=False), str(unwanted))
    assert [Path(track.path).name for track in read.tracks] == ["b.wav", "c.wav"]
    assert [skipped.reason for skipped in read.skipped] == [
        "its artist 'Cash, Johnny' is in --exclude-artists as 'Johnny Cash'"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("track_id\nx\n", "needs the column artist"),
        ("artist\n\n", "has no artist in its column artist: give another table"),
        ("artist\nThe Who\n", "leaves no track of .*tracks.csv: give another table"),
    ],
)
def test_unusable_lists_of_artists_to_exclude_are_refused(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "unwanted.csv").write_text(content)
    (tmp_path / "tracks.csv").write_text("path,artist\nb.wav,The Who\n")
    table = read_tracks(tmp_path / "tracks.csv", labelled=False)
    with pytest.raises(RequestError, match=reason):
        exclude_artists(table, str(tmp_path / "unwanted.csv"))
