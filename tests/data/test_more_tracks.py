"""Music that is added to the training part: what may be, and what is left out."""

from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.more_tracks import Artists, read_more_tracks, without_known_recordings
from mgc_ray.data.request import DatasetRequest, read_more, read_table
from mgc_ray.data.split import add_to_train, draw_folds
from mgc_ray.data.tracks import Track, TrackTable

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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cash, Johnny", "Johnny Cash"),
        ("Johnny Cash & The Tennessee Two", "Cash, Johnny"),
        ("Who [1]", "The Who"),
        ("Who, The", "WHO"),
        ("Nelson, Willie/Jennings, Waylon", "Waylon Jennings"),
        ("A Tribe Called Quest", "Tribe Called Quest"),
        ("Davis, Miles Quintet", "Miles Davis"),
        ("Earth, Wind & Fire", "Earth Wind and Fire"),
        ("Aretha Franklin, Celine Dion & Mariah Carey", "Franklin, Aretha"),
        ("Пугачёва, Алла", "Алла Пугачёва"),
    ],
)
def test_usual_spellings_of_an_artist_are_one(one: str, other: str) -> None:
    assert Artists([one]).same(other) == one
    assert Artists([other]).same(one) == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bush, Kate", "Bush [2]"),
        ("Pink", "Pink Floyd"),
        ("New York City", "New York Dolls"),
        ("", ""),
    ],
)
def test_other_artists_are_others(one: str, other: str) -> None:
    assert Artists([one]).same(other) == ""
    assert Artists([other]).same(one) == ""


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
    assert [skipped.reason for skipped in table.skipped] == [
        "its artist 'Cash, Johnny' is in --tracks as 'Johnny Cash'",
        "--tracks has no genre 'polka'",
    ]


def test_a_split_of_the_table_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("path,genre,split\nx.wav,rock,test\n")
    assert read_more_tracks(str(path), MAIN).tracks[0].split == ""


def test_artists_that_the_published_lists_name_are_known_too(tmp_path: Path) -> None:
    # the table names none, but blues.00000 is by John Lee Hooker
    main = TrackTable(Path("main.csv"), [Track("a.wav", "blues", "blues.00000")], [])
    more = _more(tmp_path, 'x.wav,blues,x,"Hooker, John Lee"', "y.wav,blues,y,Somebody")
    request = DatasetRequest(tracks="main.csv", protocol="fault-filtered", more_tracks=more)
    table = read_more(request, main)
    assert table is not None
    assert [track.track_id for track in table.tracks] == ["more:y"]


def test_arrays_beside_audio_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"must be what --tracks are, audio, but .*x\.npy"):
        read_more_tracks(_more(tmp_path, "x.npy,rock,x,"), MAIN)


def test_a_table_of_nothing_that_can_be_added_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no track that could be added.*no genre 'polka'"):
        read_more_tracks(_more(tmp_path, "x.wav,polka,x,"), MAIN)


def test_recordings_that_are_there_already_are_left_out() -> None:
    more = [Track(name, "rock", name) for name in ("x.wav", "y.wav", "z.wav")]
    hashes = {"a.wav": "1", "x.wav": "1", "y.wav": "2", "z.wav": "2"}
    kept, skipped = without_known_recordings(more, hashes, MAIN.tracks[:1])
    assert [track.path for track in kept] == ["y.wav"]
    assert [s.reason for s in skipped] == [
        "the same recording as a.wav",
        "the same recording as y.wav",
    ]


def test_added_tracks_are_in_train_and_in_no_fold() -> None:
    main = [
        Track(f"{genre}{i}", genre, f"{genre}{i}", "", f"{genre}{i}", "train")
        for genre in ("jazz", "rock")
        for i in range(6)
    ]
    more = [Track("x.wav", "rock", "more:x", "Somebody")]
    together = add_to_train(main, more, seed=0)
    folds = draw_folds(together, 3, seed=0)
    added = next(i for i, track in enumerate(together) if track.is_added)
    assert together[added].split == "train"
    assert folds[added] == -1
    assert {fold for i, fold in enumerate(folds) if i != added} == {0, 1, 2}


def test_music_by_artists_of_a_table_is_left_out(tmp_path: Path) -> None:
    unwanted = tmp_path / "unwanted.csv"
    unwanted.write_text("track_id,artist,note\nx,Johnny Cash,\ny,,\n")
    table = tmp_path / "tracks.csv"
    table.write_text('path,artist\na.wav,"Cash, Johnny"\nb.wav,The Who\nc.wav,\n')
    request = DatasetRequest(str(table), protocol="unlabelled", without=str(unwanted))
    read = read_table(request)
    assert [Path(track.path).name for track in read.tracks] == ["b.wav", "c.wav"]
    assert [skipped.reason for skipped in read.skipped] == [
        "its artist 'Cash, Johnny' is in --without as 'Johnny Cash'"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("track_id\nx\n", "needs the column artist"),
        ("artist\n\n", "names no artist"),
        ("artist\nThe Who\n", "leaves no track"),
    ],
)
def test_artists_to_leave_out_that_cannot_be_are_refused(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "unwanted.csv").write_text(content)
    (tmp_path / "tracks.csv").write_text("path,artist\nb.wav,The Who\n")
    request = DatasetRequest(
        str(tmp_path / "tracks.csv"),
        protocol="unlabelled",
        without=str(tmp_path / "unwanted.csv"),
    )
    with pytest.raises(RequestError, match=reason):
        read_table(request)
