"""Tables of well-known data sets, whose rows are no paths as they stand.

FMA's tracks.csv numbers its tracks; their files are `fma_small/000/000002.mp3`. GTZAN's usual
download has features_30_sec.csv, with names of files that are in `genres_original/GENRE`, and
features_3_sec.csv, with names of parts that are no files.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mgc_ray import RequestError

_FMA_AUDIO = re.compile(r"fma_(?:small|medium|large|full)", re.IGNORECASE)
_GTZAN_PART = re.compile(r"(\w+\.\d{5})\.\d+\.\w+")  # blues.00000.3.wav


def find_fma_audio(source: Path) -> tuple[Path, dict[str, str]]:
    """The folder with FMA's audio that belongs to a tracks.csv, and its files by number.

    It is the table's own folder, or one called like FMA's beside or above. Raises RequestError
    where there is none or several.
    """
    for place in (source.parent, source.parent.parent, source.parent.parent.parent):
        folders = [place] if place == source.parent and _fma_files(place) else _fma_folders(place)
        if len(folders) > 1:
            raise RequestError(
                f"{source} is FMA's table of all tracks, and there are several folders with audio "
                f"of it, {' and '.join(map(str, folders))}: copy the table into the one you mean, "
                f"e.g. cp {source} {folders[0]}, and give that copy"
            )
        if folders:
            return folders[0], _fma_files(folders[0])
    raise RequestError(
        f"{source} is FMA's table of all tracks, but no folder with their audio "
        f"(fma_small/000/000002.mp3) is beside it: copy the table into the folder that has 000, "
        f"001, ... in it, cp {source} FOLDER, and give that copy"
    )


def _fma_folders(place: Path) -> list[Path]:
    """Folders called like FMA's that hold audio; unpacked, one may be inside another."""
    found = []
    for folder in _subfolders(place, _FMA_AUDIO):
        for one in (folder, *_subfolders(folder, _FMA_AUDIO)):
            if _fma_files(one):
                found.append(one)
                break
    return found


def _fma_files(folder: Path) -> dict[str, str]:
    """Files of the form 000/000002.mp3, by their number as FMA writes it: "2"."""
    found: dict[str, str] = {}
    for hundreds in _subfolders(folder, re.compile(r"\d{3}")):
        try:
            names = sorted(os.listdir(hundreds))
        except OSError:
            continue
        for name in names:
            stem = Path(name).stem
            if re.fullmatch(r"\d{6}", stem, re.ASCII):
                found.setdefault(str(int(stem)), str(hundreds / name))
    return found


def _subfolders(folder: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if name.fullmatch(one.name) and one.is_dir())
    except OSError:
        return []


def is_gtzan_features(header: Sequence[str]) -> bool:
    """Whether a table is one of the feature tables of GTZAN's usual downloads."""
    features = any(name.startswith("chroma_stft") for name in header)
    return features and {"filename", "label"} <= set(header)


def refuse_gtzan_parts(source: Path, names: Sequence[str]) -> None:
    """Refuse features_3_sec.csv, whose names are parts of 3 s and no files."""
    if not names or not _GTZAN_PART.fullmatch(Path(names[0]).name):
        return
    others = (source.with_name("features_30_sec.csv"), source.with_name("genres_original"))
    there = next((str(other) for other in others if other.exists()), str(others[0]))
    raise RequestError(
        f"{source} lists parts of songs ({names[0]}) that are no files; the program cuts songs "
        f"into chunks itself, so give it the whole ones: --tracks {there}"
    )
