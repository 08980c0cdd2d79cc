"""Tracks that a task reads on any node: where it sees them, or a temporary copy."""

from pathlib import Path

from mgc_ray.data.fetcher import TrackFetcher
from mgc_ray.data.storage import Storage, scratch


def test_without_a_storage_the_path_itself_is_read() -> None:
    with TrackFetcher()("/music/a.wav") as path:
        assert path == "/music/a.wav"


def test_tracks_are_read_from_temporary_copies(storage: Storage, tmp_path: Path) -> None:
    song = tmp_path / "a song.wav"
    song.write_bytes(b"music")
    fetcher = TrackFetcher(storage, "tracks")
    done: list[int] = []
    fetcher.upload([str(song), str(tmp_path / "missing.wav")], done.append)
    assert done == [1, 2]
    song.write_bytes(b"changed")
    fetcher.upload([str(song)], done.append)  # it is there already
    with fetcher(str(song)) as place:
        assert place == str(song)  # this node sees it
    song.unlink()
    with fetcher(str(song)) as place:
        assert Path(place).read_bytes() == b"music"
        assert place.endswith(".wav")
        assert Path(place).is_relative_to(scratch())
    assert not Path(place).exists()
    with fetcher(str(tmp_path / "missing.wav")) as place:
        assert place == str(tmp_path / "missing.wav")  # which is then reported as missing
    fetcher.delete_uploads()
    assert storage.files("tracks") == []
