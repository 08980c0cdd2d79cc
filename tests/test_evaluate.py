"""The command evaluate, on folders as people have them."""

import json
from pathlib import Path

from mgc_ray.corpus.files import write_track
from tests.commands import command


def test_spellings_of_the_models_genres_and_short_songs_are_said(tmp_path: Path) -> None:
    for part, genre, seconds in (
        ("train", "Rock", 15.0),
        ("test", "rock", 1.0),
        ("test", "Hip-Hop", 15.0),
    ):
        folder = tmp_path / "music" / part / genre
        folder.mkdir(parents=True)
        write_track(folder / f"{genre}.wav", genre.lower().replace("-", ""), 0, 0, seconds)
    options = ("--tracks", "music", "--split", "test", "--json")
    done = command("evaluate", *options, cwd=tmp_path)
    assert "'Hip-Hop' and 'hiphop' are taken for one genre, 'hiphop'\n" in done.stderr
    assert "1 track shorter than half of the model's chunks, which it was not tra" in done.stderr
    evaluated = json.loads(done.stdout)
    assert (evaluated["metrics"]["tracks"], evaluated["short"], evaluated["skipped"]) == (2, 1, [])
