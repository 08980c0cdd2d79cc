"""The track table: what is read from a folder or a CSV, and what is refused."""

import contextlib
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.split.groups import assign_groups
from mgc_ray.data.split.protocols import check_table
from mgc_ray.data.tracks import (
    ColumnNames,
    Skipped,
    Track,
    read_artists,
    read_tracks,
    with_one_spelling,
)


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def csv_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "tracks.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- a folder ---


def test_a_subfolder_is_a_genre_and_the_file_names_are_the_ids(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/b.wav", "jazz/a.flac", "blues/live/c.mp3")
    table = read_tracks(tmp_path)
    assert table.source == tmp_path
    assert table.genres == ["blues", "jazz"]
    assert table.skipped == []
    assert table.tracks == [
        Track(str(tmp_path / "blues/live/c.mp3"), "blues", "c"),
        Track(str(tmp_path / "jazz/a.flac"), "jazz", "a"),
        Track(str(tmp_path / "jazz/b.wav"), "jazz", "b"),
    ]


def test_files_of_one_name_get_their_path_as_id(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/1.wav", "blues/1.wav", "blues/1.flac", "blues/2.wav")
    ids = [track.track_id for track in read_tracks(tmp_path).tracks]
    assert ids == ["blues/1.flac", "blues/1.wav", "2", "jazz/1.wav"]


def test_hidden_music_is_skipped_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav", "jazz/.DS_Store", "jazz/.trash/c.wav")
    table = read_tracks(tmp_path)
    assert [track.track_id for track in table.tracks] == ["a"]
    assert [one.path for one in table.skipped] == [str(tmp_path / "jazz/.trash/c.wav")]
    assert "begins with a dot" in table.skipped[0].reason
    assert table.no_audio == {"without an ending": 1}


def test_a_hidden_folder_above_the_tracks_hides_nothing(tmp_path: Path) -> None:
    source = touched(tmp_path / ".music", "jazz/a.wav")
    assert [track.track_id for track in read_tracks(source).tracks] == ["a"]


def test_files_outside_the_genre_folders_are_skipped_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav", "b.wav", "README.txt")
    table = read_tracks(tmp_path)
    assert table.skipped == [Skipped(str(tmp_path / "b.wav"), "is outside the genre folders")]
    assert table.no_audio == {".txt": 1}


def test_a_circular_link_is_not_followed(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav")
    (tmp_path / "jazz/again").symlink_to(tmp_path)
    assert [track.track_id for track in read_tracks(tmp_path).tracks] == ["a"]


def test_a_name_that_is_not_utf_8_is_skipped_with_the_reason(tmp_path: Path) -> None:
    touched(tmp_path, "jazz/a.wav")
    (tmp_path / "jazz" / b"caf\xe9.wav".decode("utf-8", "surrogateescape")).touch()
    table = read_tracks(tmp_path)
    assert [track.track_id for track in table.tracks] == ["a"]
    assert table.skipped == [
        Skipped(str(tmp_path / "jazz" / "caf\\xe9.wav"), "its name is not UTF-8")
    ]


def test_a_source_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    touched(folder, "jazz/a.wav")
    message = r"--tracks must have a UTF-8 name, but it is /.*/caf\\xe9: rename it"
    with pytest.raises(RequestError, match=message):
        read_tracks(folder)
    with contextlib.chdir(folder), pytest.raises(RequestError, match=message):
        read_tracks(".")


def test_an_empty_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no track: expected FOLDER/GENRE/FILE, or a CSV"):
        read_tracks(tmp_path)
    touched(tmp_path, "rock/rock00000.png")
    with pytest.raises(RequestError, match=r"no track \(1 file is no audio \(1 .png\)\): exp"):
        read_tracks(tmp_path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--tracks must be a folder .*nowhere does not exist"):
        read_tracks(tmp_path / "nowhere")


def test_a_device_as_source_is_refused() -> None:
    with pytest.raises(RequestError, match=r"/dev/null is neither"):
        read_tracks("/dev/null")


# --- files of the wrong kind, spellings ---


@pytest.mark.parametrize(
    ("usual", "stray", "reason"),
    [
        (".wav", "NPY", "a .npy spectrogram among audio"),
        (".npy", "wav", "no .npy spectrogram, as all others are"),
    ],
)
def test_a_stray_file_of_the_other_kind_is_listed(
    tmp_path: Path, usual: str, stray: str, reason: str
) -> None:
    touched(tmp_path, *(f"{genre}/{i}{usual}" for genre in ("jazz", "rock") for i in range(5)))
    table = read_tracks(touched(tmp_path, f"rock/stray.{stray}"))
    assert len(table.tracks) == 10
    assert table.skipped == [Skipped(str(tmp_path / f"rock/stray.{stray}"), reason)]
    check_table(table, "grouped")
    # two of ten are no stray files any more, nor is all that a genre has
    touched(tmp_path, f"rock/another.{stray}")
    with pytest.raises(RequestError, match=rf"not both, but .*stray|another.{stray}\)"):
        check_table(read_tracks(tmp_path), "grouped")
    (tmp_path / f"rock/another.{stray}").unlink()
    (tmp_path / f"rock/stray.{stray}").unlink()
    with pytest.raises(RequestError, match="not both, but"):
        check_table(read_tracks(touched(tmp_path, f"pop/1.{stray}")), "grouped")


def test_spellings_of_a_genre_are_one_with_a_note(tmp_path: Path) -> None:
    touched(tmp_path, "Rock/a.wav", "Rock/b.wav", "rock/c.wav", "hip hop/d.wav", "Hip-Hop/e.wav")
    table = read_tracks(tmp_path)
    assert [track.genre for track in table.tracks] == ["Hip-Hop", *["Rock"] * 2, "Hip-Hop", "Rock"]
    assert table.notes == (
        "'Hip-Hop' and 'hip hop' are taken for one genre, 'Hip-Hop'",
        "'Rock' and 'rock' are taken for one genre, 'Rock'",
    )
    assert table.genres_in_words() == "genres: Hip-Hop (2 files), Rock (3)"
    source = csv_file(tmp_path, "path,genre\na.wav,Rock\nb.wav,rock\nc.wav,rock\n")
    assert read_tracks(source).genres == ["rock"]
    assert with_one_spelling(read_tracks(source), ["ROCK"]).genres == ["ROCK"]


# --- a CSV ---


def test_a_csv_is_read_with_all_its_columns_and_paths_relative_to_it(tmp_path: Path) -> None:
    source = csv_file(
        tmp_path,
        "path,genre,track_id,artist,split\n"
        "a.wav,jazz,one,Ella,train\n"
        "../b.wav,blues,two,B. B.,valid\n"
        "/music/c.wav,blues,three,,\n",
    )
    assert read_tracks(source).tracks == [
        Track(str(tmp_path / "a.wav"), "jazz", "one", "Ella", split="train"),
        Track(str(tmp_path.parent / "b.wav"), "blues", "two", "B. B.", split="valid"),
        Track("/music/c.wav", "blues", "three"),
    ]


def test_a_byte_order_mark_spaces_and_quotes_are_ignored(tmp_path: Path) -> None:
    source = csv_file(
        tmp_path,
        b"\xef\xbb\xbf path , genre ,artist\r\n"
        b" a.wav , jazz , Ella \r\n"
        b'"b, live.wav",jazz,"Ella"\r\n',
    )
    assert read_tracks(source).tracks == [
        Track(str(tmp_path / "a.wav"), "jazz", "a.wav", "Ella"),
        Track(str(tmp_path / "b, live.wav"), "jazz", "b, live.wav", "Ella"),
    ]


def test_missing_optional_columns_short_rows_and_further_columns_are_allowed(
    tmp_path: Path,
) -> None:
    source = csv_file(tmp_path, "genre,path,year,artist\njazz,a.wav\nblues,b.wav,1960,Ella\n")
    table = read_tracks(source)
    assert table.tracks == [
        Track(str(tmp_path / "a.wav"), "jazz", "a.wav"),
        Track(str(tmp_path / "b.wav"), "blues", "b.wav", "Ella"),
    ]
    assert table.notes == (
        f"{source}: line 2: fewer cells than in the header, so the last ones count as empty",
    )


def test_a_row_without_a_genre_is_skipped_with_the_reason(tmp_path: Path) -> None:
    table = read_tracks(csv_file(tmp_path, "path,genre\na.wav,jazz\nb.wav,\nc.wav\n"))
    assert [track.track_id for track in table.tracks] == ["a.wav"]
    reason = "the table has no genre for it"
    assert table.skipped == [
        Skipped(str(tmp_path / "b.wav"), reason),
        Skipped(str(tmp_path / "c.wav"), reason),
    ]


def test_a_row_without_a_path_is_refused_with_its_line(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "path,genre\na.wav,jazz\n,jazz\n")
    with pytest.raises(RequestError, match="line 3: each row needs a path, but this one has none"):
        read_tracks(source)


def test_the_first_of_repeated_rows_is_used(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "path,genre,artist\na.wav,jazz,Ella\nx/../a.wav,jazz,Nina\n")
    table = read_tracks(source)
    assert [track.artist for track in table.tracks] == ["Ella"]
    assert table.skipped == [
        Skipped(str(tmp_path / "a.wav"), "repeated in line 3; the first row is used")
    ]


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    text = "path,genre,track_id\na.wav,jazz,one\nb.wav,jazz,one\nc.wav,jazz,two\nd.wav,jazz,two\n"
    source = csv_file(tmp_path, text)
    with pytest.raises(
        RequestError,
        match=r"track_id must be unique, but 'one' has several paths \(and 1 more ids\)",
    ):
        read_tracks(source)


def test_two_genres_for_one_path_are_refused_and_both_are_named(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "path,genre\na.wav,jazz\nb.wav,jazz\n./a.wav,rock\n")
    with pytest.raises(
        RequestError, match=r"line 4: a path has one genre, but \./a.wav .* 'jazz' and as 'rock'"
    ):
        read_tracks(source)


def test_an_unknown_split_is_refused_with_its_line(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "path,genre,split\na.wav,jazz,train\n\nb.wav,jazz,Fold 3\n")
    with pytest.raises(
        RequestError, match="line 4: split must be one of train, valid, test or empty, .* 'Fold 3'"
    ):
        read_tracks(source)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("path,artist\na.wav,Ella\n", "genre is missing from its first line: 'path,artist'"),
        ("a,jazz\n", "path and genre is missing from its first line: 'a,jazz'; correct that"),
        ("", "path and genre is missing"),
    ],
)
def test_missing_columns_are_refused_by_name(tmp_path: Path, text: str, missing: str) -> None:
    with pytest.raises(RequestError, match=missing):
        read_tracks(csv_file(tmp_path, text))


def test_a_csv_without_rows_holds_no_track(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no track"):
        read_tracks(csv_file(tmp_path, "path,genre\n"))


def test_a_table_of_which_every_row_is_left_out_is_refused_with_the_first_reason(
    tmp_path: Path,
) -> None:
    source = csv_file(tmp_path, "path,genre\na.wav,\nb.wav,NA\n")
    with pytest.raises(RequestError, match="no track: .*; 2 left out, the first: .*a.wav: the tab"):
        read_tracks(source)


# --- a table as people have it ---


@pytest.mark.parametrize(
    ("header", "assumed"),
    [
        ("Path,Genre,ARTIST,Split,Track ID", ()),
        ("PATH , genre,Artist,split,track_id", ()),
        (
            "File Name,label,artist,split,track_id",
            ("takes the column 'File Name' as the path, 'label' as the genre",),
        ),
        (
            "filepath,Class,Artist Name,partition,trackid",
            (
                "takes the column 'filepath' as the path, 'Class' as the genre, 'Artist Name' as "
                "the artist, 'partition' as the split",
            ),
        ),
    ],
)
def test_headers_are_known_by_usual_names_in_any_case(
    tmp_path: Path, header: str, assumed: tuple[str, ...]
) -> None:
    source = csv_file(tmp_path, f"{header}\na.wav,jazz,Ella,train,one\n")
    table = read_tracks(source)
    assert table.tracks == [Track(str(tmp_path / "a.wav"), "jazz", "one", "Ella", split="train")]
    assert table.notes == tuple(f"{source}: {sentence}" for sentence in assumed)


def test_the_programs_own_name_comes_before_other_usual_ones(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "label,filename,path,genre\nVerve,x,a.wav,jazz\n")
    table = read_tracks(source)
    assert table.tracks == [Track(str(tmp_path / "a.wav"), "jazz", "a.wav")]
    assert table.notes == ()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,filename,genre", "columns 'file' and 'filename' may both be the path: say which by"),
        ("path,label,class", "'label' and 'class' may both be the genre: say which by --genre-col"),
        ("path,genre,band,performer", "may both be the artist: say which by the setting artist_co"),
    ],
)
def test_two_usual_names_of_one_column_are_refused(
    tmp_path: Path, header: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        read_tracks(csv_file(tmp_path, f"{header}\na,b,c,d\n"))


def test_columns_may_be_given_by_name(tmp_path: Path) -> None:
    text = "song;style;path;who;part;genre\na.wav;jazz;x;Ella;dev;y\n"
    source = csv_file(tmp_path, text)
    names = ColumnNames("Song", "style", "who", "part")
    table = read_tracks(source, names=names)
    assert table.tracks == [Track(str(tmp_path / "a.wav"), "jazz", "a.wav", "Ella", split="valid")]
    assert table.notes == (f"{source}: takes the split 'dev' as valid",)
    with pytest.raises(
        RequestError,
        match=r"--genre-column stile: .*tracks.csv has no such column \(nearest: style\); its "
        "columns are song, style, path, who, part, genre",
    ):
        read_tracks(source, names=ColumnNames("song", "stile"))
    # as it is written, where several names differ in case or signs only
    text = "Path,path,#,Genre,genre\na.wav,b.wav,c.wav,jazz,rock\n"
    for path, genre, expected in (("Path", "genre", "a.wav rock"), ("#", "Genre", "c.wav jazz")):
        table = read_tracks(csv_file(tmp_path, text), names=ColumnNames(path, genre))
        assert f"{table.tracks[0].track_id} {table.tracks[0].genre}" == expected
    # of a second table, which may have the usual names
    source = csv_file(tmp_path, "song;style;path;genre\na.wav;jazz;x;y\n")
    lenient = ColumnNames("title", "stile", needed=False)
    assert [track.genre for track in read_tracks(source, names=lenient).tracks] == ["y"]
    with pytest.raises(RequestError, match="--path-column, .* is a folder: leave them out"):
        read_tracks(touched(tmp_path, "jazz/a.wav"), names=ColumnNames("song"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("train valid test", "train valid test"),
        ("Training VALIDATION Testing", "train valid test"),
        ("TRAIN val test", "train valid test"),
        ("training dev testing", "train valid test"),
        ("train eval test", "train valid test"),
        ("train evaluation nan", "train valid "),
        ("train dev eval", "train valid test"),
    ],
)
def test_split_words_are_known_in_any_case(tmp_path: Path, words: str, parts: str) -> None:
    rows = [f"{i}.wav,jazz,{word}" for i, word in enumerate(words.split())]
    table = read_tracks(csv_file(tmp_path, "\n".join(["path,genre,split", *rows])))
    assert [track.split for track in table.tracks] == parts.split(" ")
    assert len(table.notes) == (words != "train valid test")


def test_eval_beside_valid_and_test_may_be_either_and_is_refused(tmp_path: Path) -> None:
    text = "path,genre,split\na.wav,jazz,test\nb.wav,jazz,dev\nc.wav,jazz,eval\n"
    with pytest.raises(RequestError, match="line 4: split must be one of .* but it is 'eval'"):
        read_tracks(csv_file(tmp_path, text))


def test_a_split_in_the_column_of_the_artist_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = ["path,genre,artist,split", "a.wav,jazz,,train", "b.wav,jazz,Test,", "c.wav,jazz,test"]
    with pytest.raises(RequestError, match="line 3: the artist is 'Test', which is a part of the"):
        read_tracks(csv_file(tmp_path, "\n".join(lines)))
    lines = ["path,genre,artist,split", "a.wav,jazz,Test,train", "b.wav,jazz,Test,test"]
    assert len(read_tracks(csv_file(tmp_path, "\n".join(lines))).tracks) == 2
    assert len(read_tracks(csv_file(tmp_path, "path,genre,artist\na.wav,jazz,Test")).tracks) == 1


def test_one_genre_in_several_spellings_is_one(tmp_path: Path) -> None:
    # Bossa nova; chanson française in both Unicode forms
    genres = ["bossa nova", "Bossa  Nova", "bossa nova", "fran\u00e7ais", "franc\u0327ais"]
    rows = [f"{i}.wav,{genre}" for i, genre in enumerate(genres)]
    table = read_tracks(csv_file(tmp_path, "\n".join(["path,genre", *rows])))
    assert [track.genre for track in table.tracks] == ["bossa nova"] * 3 + ["fran\u00e7ais"] * 2
    assert "'Bossa  Nova' and 'bossa nova' are taken for one genre, 'bossa nova'" in table.notes[0]


@pytest.mark.parametrize("cell", ["nan", "NaN", "NULL", "None", "N/A", "<NA>", "#N/A"])
def test_what_exports_write_for_no_value_is_none(tmp_path: Path, cell: str) -> None:
    rows = ["a.wav,jazz,", f"b.wav,{cell},Ella", f"c.wav,jazz,{cell}"]
    table = read_tracks(csv_file(tmp_path, "\n".join(["path,genre,artist", *rows])))
    assert [(track.track_id, track.artist) for track in table.tracks] == [
        ("a.wav", ""),
        ("c.wav", ""),
    ]
    assert table.skipped == [Skipped(str(tmp_path / "b.wav"), "the table has no genre for it")]


def test_an_unquoted_comma_in_an_artist_is_part_of_the_name_where_the_rest_fits(
    tmp_path: Path,
) -> None:
    touched(tmp_path, "a.wav", "b.wav")
    text = "path,genre,artist,split\na.wav,soul,Ella,train\nb.wav,soul,Earth, Wind & Fire,test\n"
    table = read_tracks(csv_file(tmp_path, text))
    assert [track.artist for track in table.tracks] == ["Ella", "Earth, Wind & Fire"]
    assert [track.split for track in table.tracks] == ["train", "test"]
    assert len(table.notes) == 1
    assert "line 3: more cells than in the header, so 'Earth, Wind & Fire' is" in table.notes[0]


@pytest.mark.parametrize(
    "row",
    [
        "b.wav,soul,Earth,Wind & Fire,test",  # no space
        "b.wav,soul,Earth, Wind & Fire, test",  # two spaces for one cell
        "missing, or so.wav,soul,Ella,test",  # no such file
        "b.wav,pop, or so,Ella,test",  # no other row has this genre
        "b.wav,soul,Ella,test, or so",  # no split
        'b.wav,soul,"Earth, Wind" ,x,test',
    ],
)
def test_other_rows_with_too_many_cells_are_refused_with_their_line(
    tmp_path: Path, row: str
) -> None:
    touched(tmp_path, "a.wav", "b.wav")
    source = csv_file(tmp_path, f"path,genre,artist,split\na.wav,soul,Ella,train\n\n{row}\n")
    with pytest.raises(
        RequestError, match='line 4: the row has more cells .* enclose that cell in ",'
    ):
        read_tracks(source)


def test_a_comma_is_not_cut_off_where_a_row_has_as_many_cells_as_the_header(
    tmp_path: Path,
) -> None:
    touched(tmp_path, "a.wav", "b.wav")
    lines = ["path,genre,artist,year", "a.wav,soul,Ella,1960", "b.wav,soul,Earth, Wind & Fire"]
    with pytest.raises(
        RequestError,
        match="line 3: it is not clear whether 'Earth, Wind & Fire' is one cell or two: enclose it "
        'in ", .* or remove the space',
    ):
        read_tracks(csv_file(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    "lines",
    [
        ["path,genre,artist,year", "a.wav,soul,Ella, 1960", "b.wav,soul,Nina, 1958"],
        ["path, genre, artist, year", "a.wav,soul,Ella,1960", "b.wav,soul,Nina, 1958"],
        ["path,genre,artist,year", "a.wav,soul,Ella,1960", "b.wav, soul,Nina,1958"],
        ["path,genre,artist,year", "a.wav,soul,Ella,1960", 'b.wav,soul,"Nina", 1958'],
    ],
)
def test_spaces_after_commas_do_no_harm_elsewhere(tmp_path: Path, lines: list[str]) -> None:
    touched(tmp_path, "a.wav", "b.wav")
    table = read_tracks(csv_file(tmp_path, "\n".join(lines)))
    assert [(track.genre, track.artist) for track in table.tracks] == [
        ("soul", "Ella"),
        ("soul", "Nina"),
    ]
    assert table.notes == ()


# --- without genres ---


def test_an_unlabelled_folder_is_read_at_any_depth(tmp_path: Path) -> None:
    touched(tmp_path, "a.wav", "more/b.wav", "more/deep/c.flac", "more/a.wav", ".hidden/d.wav")
    assert read_tracks(tmp_path, labelled=False).tracks == [
        Track(str(tmp_path / "a.wav"), "", "a.wav"),
        Track(str(tmp_path / "more/a.wav"), "", "more/a.wav"),
        Track(str(tmp_path / "more/b.wav"), "", "b"),
        Track(str(tmp_path / "more/deep/c.flac"), "", "c"),
    ]


def test_genres_and_splits_of_an_unlabelled_csv_are_ignored(tmp_path: Path) -> None:
    text = "path,genre,artist,split\na.wav,jazz,Ella,dev\nb.wav,,,\na.wav,rock,,\n"
    table = read_tracks(csv_file(tmp_path, text), labelled=False)
    assert table.tracks == [
        Track(str(tmp_path / "a.wav"), "", "a.wav", "Ella"),
        Track(str(tmp_path / "b.wav"), "", "b.wav"),
    ]
    assert table.genres == []
    assert table.skipped == [
        Skipped(str(tmp_path / "a.wav"), "repeated in line 4; the first row is used")
    ]
    check_table(table, "unlabelled")


def test_parts_of_one_recording_are_one_group_in_an_unlabelled_csv(tmp_path: Path) -> None:
    rows = ("1.npy,song,", "2.npy,song,", "3.npy,tune,Ella", "4.npy,tune,", "5.npy,other,")
    source = csv_file(tmp_path, "\n".join(["path,track_id,artist", *rows]))
    tracks = read_tracks(source, labelled=False).tracks
    assert [Path(track.track_id).name for track in tracks] == [
        *(f"{i}.npy" for i in "1234"),
        "other",
    ]
    groups = [track.group for track in assign_groups(tracks, {})]
    assert groups == ["song", "song", "Ella", "Ella", "other"]


def test_an_unlabelled_csv_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError,
        match=r"needs the column path \(and may have track_id, artist\), but path is missing",
    ):
        read_tracks(csv_file(tmp_path, "song,artist\na.wav,Ella\n"), labelled=False)


def test_an_empty_unlabelled_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected FOLDER/FILE, or a CSV with the columns path"):
        read_tracks(tmp_path, labelled=False)


# --- artists ---


def test_the_artists_of_a_csv_are_listed_once(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "track_id,artist\na,Nina\nb,Ella\nc,\nd, Ella \n")
    assert read_artists(source) == (["Ella", "Nina"], ())


def test_the_artists_of_other_tables_are_found_and_what_was_assumed_is_said(tmp_path: Path) -> None:
    source = csv_file(tmp_path, "Performer\nElla\nEarth, Wind & Fire\nNaN\n")
    assert read_artists(source) == (
        ["Earth, Wind & Fire", "Ella"],
        (
            f"{source}: takes the column 'Performer' as the artist",
            f"{source}: line 3: more cells than in the header, so 'Earth, Wind & Fire' is taken as "
            "one",
        ),
    )
    source = csv_file(tmp_path, "Who;path\nElla;a.wav\n")
    assert read_artists(source, ColumnNames(artist="who"))[0] == ["Ella"]
