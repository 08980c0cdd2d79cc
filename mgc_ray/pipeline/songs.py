"""Which songs are to be predicted: files, those below folders, and those that tables list."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mgc_ray import RequestError
from mgc_ray.data.tracks import ColumnNames, read_tracks
from mgc_ray.data.walk import Walk, no_audio_in_words, walk
from mgc_ray.pipeline.tables import print_notes
from mgc_ray.terminal.command import console

if TYPE_CHECKING:
    from mgc_ray.ensembling.saved import Ensemble

_TABLES = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Songs:
    """Files in order, each with the reason if it is a table that cannot be read.

    `left_out`: what else folders and tables have, with the reason.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def load_model(model: str | Path | None) -> "Ensemble":
    """The ensemble that predicts, by default the one that comes with the program.

    Prints a line where members are left out, as something that they need is not installed.
    """
    from mgc_ray.ensembling.saved import load_ensemble, shipped_model

    ensemble = load_ensemble(model or shipped_model(), partly=True)
    if ensemble.left_out:
        console.print(ensemble.left_out, soft_wrap=True)
    return ensemble


def find_songs(given: Sequence[str], path_column: str = "") -> Songs:
    """The songs among files, folders and tables; RequestError where there are none.

    A table that cannot be read is a file with a reason, so that the others are predicted.
    """
    songs, no_audio = Songs(), Walk().no_audio
    for name in given:
        if Path(name).is_dir():
            found = walk(Path(name))
            songs.files.extend((str(path), "") for path in found.files)
            songs.left_out.extend((str(path), reason) for path, reason in found.left_out)
            no_audio += found.no_audio
        elif Path(name).suffix.lower() in _TABLES and Path(name).is_file():
            _add_listed(songs, name, path_column)
        else:
            songs.files.append((name, ""))
    if no_audio:
        console.print(no_audio_in_words(no_audio))
    if not songs.files:
        raise RequestError(f"{' '.join(given)} has no file that may be a song: give another folder")
    return songs


def _add_listed(songs: Songs, table: str, path_column: str) -> None:
    try:
        names = ColumnNames(path=path_column)
        read = read_tracks(table, labelled=False, names=names, option="a table")
    except RequestError as error:
        songs.files.append((table, str(error)))
        return
    print_notes(read)
    songs.files.extend((track.path, "") for track in read.tracks)
    songs.left_out.extend((one.path, one.reason) for one in read.skipped)
