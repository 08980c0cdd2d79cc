"""Damaged input of every kind, from seeds, and what the program does with it.

Each case must end with a result or with the program's own refusal: no other exception, no hang, no
memory without bounds, and nothing on standard error.
"""

import contextlib
import csv
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import search_spaces
from mgc_ray import RequestError
from mgc_ray.config import Protocol
from mgc_ray.data.audio import UnusableTrackError
from mgc_ray.data.features import FeatureSet, TrackFeatures
from mgc_ray.data.features.array import RECIPES, Array
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.data.split.protocols import draw_split
from mgc_ray.data.tags import with_artists
from mgc_ray.data.tracks import read_tracks
from mgc_ray.ensembling.saved import SongFeatures, load_ensemble
from mgc_ray.reporting.songs import excerpt
from mgc_ray.training.checkpoint import load_checkpoint
from mgc_ray.tuning.space import default_params, load_space
from tests.made_songs import ENCODERS, encode

SECONDS = 30  # a case may take
GIBIBYTE = 1 << 30  # of address space, more than before, a case may take
PROTOCOLS: list[Protocol] = ["grouped", "given", "cross-validation", "random-chunks"]
NAMES = ("traffic", "Ärger", "音楽", "müzik 🎵", "a" * 200, "with\nline", "-dash", "عود", "'", " ")

Case = tuple[str, Callable[[], object]]  # what was damaged; what the program is asked to do


class HangError(Exception):
    """A case took longer than SECONDS."""


def run_cases(cases: Iterator[Case]) -> tuple[Counter[str], list[str]]:
    """How many cases had a result and how many were refused; what went wrong, in words."""
    counts: Counter[str] = Counter()
    wrong = []
    for what, call in cases:
        before = _resident()
        printed = io.StringIO()
        try:
            with _limits(), _standard_error() as printed:
                call()
            counts["result"] += 1
        except (UnusableTrackError, RequestError) as error:
            counts["refused"] += 1
            if not str(error) or "\0" in str(error):
                wrong.append(f"{what}: the reason is {str(error)!r}")
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        if printed.getvalue():
            wrong.append(f"{what}: printed {printed.getvalue()[:200]!r}")
        if _resident() - before > GIBIBYTE:
            wrong.append(f"{what}: {(_resident() - before) >> 20} MiB")
    return counts, wrong


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def _limits() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise HangError(f"longer than {SECONDS} s")

    earlier = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


@contextmanager
def _standard_error() -> Iterator[io.StringIO]:
    """Holds at the end what was written to standard error, by C libraries as well."""
    printed = io.StringIO()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            printed.write(file.read().decode(errors="replace"))


# --- audio and arrays ---


def sound_files() -> list[tuple[str, bytes]]:
    """Undamaged files of each format, with their endings."""
    tone = np.sin(np.arange(12_000) / 9).astype(np.float32)
    stereo = np.stack([tone, 0.5 * tone], 1)
    made = []
    for ending, options in {
        "wav": {"subtype": "PCM_16"},
        "WAV": {"format": "WAV", "subtype": "FLOAT"},
        "w64": {"format": "W64", "subtype": "PCM_24"},
        "flac": {},
        "ogg": {},
        "mp3": {},
        "aiff": {},
        "au": {},
    }.items():
        file = io.BytesIO()
        kind = str(options.get("format", ending)).upper()
        soundfile.write(file, stereo, 22_050, format=kind, subtype=options.get("subtype"))
        made.append((ending, file.getvalue()))
    with tempfile.TemporaryDirectory() as folder:
        for ending, (encoder, rate, format) in ENCODERS.items():
            song = encode(Path(folder) / f"a.{ending}", stereo, rate, encoder, format)
            made.append((ending, song.read_bytes()))
    return made


def arrays() -> list[tuple[str, bytes]]:
    made = []
    for array in (
        np.random.default_rng(0).integers(0, 255, (128, 387)).astype(np.uint8),
        np.random.default_rng(0).normal(size=(128, 300)).astype(np.float32),
    ):
        file = io.BytesIO()
        np.save(file, array)
        made.append(("npy", file.getvalue()))
    return made


def damaged(content: bytes, draw: random.Random, all_of: list[bytes]) -> tuple[str, bytes]:
    """Damage a file in one way or several: what was done, and the content."""
    done = []
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        way = draw.choice(
            ["cut", "bits", "head", "numbers", "zeros", "other header", "insert", "repeat", "huge"]
        )
        done.append(way)
        size = max(len(data), 1)
        place = draw.randrange(size)
        head = draw.randrange(min(size, 100))
        if way == "cut":
            del data[place:]
        elif way == "bits":
            for _ in range(draw.randrange(1, 40)):
                if data:
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif way == "head":
            if data:
                data[min(head, len(data) - 1)] = draw.randrange(256)
        elif way == "numbers":  # sizes, rates and counts are in the first hundred bytes
            number = draw.choice([0, 1, 2**31 - 1, 2**32 - 1, 44100, 65535, 2**24, 999_999_999])
            order = draw.choice("<>")
            data[head : head + 4] = struct.pack(f"{order}I", number)
        elif way == "zeros":
            data[place : place + draw.randrange(1, 5000)] = bytes(draw.randrange(1, 5000))
        elif way == "other header":
            other = draw.choice(all_of)
            data[: len(data) // 8 or 4] = other[: draw.randrange(4, 200)]
        elif way == "insert":
            data[place:place] = draw.randbytes(draw.randrange(1, 2000))
        elif way == "repeat":
            data += data[place:]
        else:  # NaN and infinity as samples, in either precision
            value = draw.choice([float("nan"), float("inf"), -float("inf"), 3e38])
            data[-400:] = struct.pack("<f", value) * 100
    return ", ".join(done), bytes(data)


def music_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Damaged files, read as audio, as audio in the form of arrays, or as arrays."""
    draw = random.Random(seed)
    files = [*sound_files(), *arrays()]
    contents = [content for _, content in files]
    with_recipe = Array(bands=128, frames=38, value_type="uint8", recipe=RECIPES["gtzan"])
    features = [
        FeatureSet({"log_mel": LogMel()}),
        FeatureSet({"array": with_recipe}),
        FeatureSet({"array": Array(bands=128, frames=38, value_type="float32")}),
    ]
    for number in range(count):
        ending, content = draw.choice(files)
        what, data = damaged(content, draw, contents)
        if draw.random() < 0.1:
            ending = draw.choice(["wav", "mp3", "npy", "raw", "txt", "", "NPY"])
        path = folder / f"{draw.choice(NAMES)}{number}.{ending}"
        path.write_bytes(data)
        chosen = draw.choice(features)

        def compute(number: int = number, path: Path = path, chosen: FeatureSet = chosen) -> None:
            if number % 10 == 0:  # takes four times as long as the rest
                excerpt(path, "")
            computed = chosen.compute(path)
            for name, chunks in computed.columns.items():
                feature = chosen.columns[name]
                assert chunks.shape == (computed.chunks, feature.bands, feature.frames)
                assert np.isfinite(chunks.astype(np.float64)).all(), "not finite"

        yield f"seed {seed}, case {number}: {ending}, {what}", compute
        path.unlink(missing_ok=True)


# --- folders ---

FOLDERS = (
    *("jazz", "rock", "Rock", "hip hop", "Hip-Hop", "blues", "nan", "None", "1", "2", "000", "001"),
    *("train", "val", "test", "genres_original", "images_original", "fma_small", "mp3", "Abba"),
    *("CD 1", ".hidden", "...And Justice for All", "__MACOSX", "Ärger", "A\u0308rger", "a" * 200),
)
ENDINGS = (
    ".wav",
    ".mp3",
    ".MP3",
    ".m4a",
    ".webm",
    ".npy",
    ".jpg",
    ".txt",
    ".m3u",
    "",
    ".",
    ".part",
)


def folder_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Folders of any layout and names, with links; read and split. Each file is accounted for."""
    draw = random.Random(seed)
    for number in range(count):
        root = folder / f"{number}" / draw.choice(["music", *FOLDERS])
        root.mkdir(parents=True)
        links = _fill(root, draw)
        protocol, labelled = draw.choice(PROTOCOLS), draw.random() < 0.8

        def read(
            root: Path = root,
            protocol: Protocol = protocol,
            labelled: bool = labelled,
            links: bool = links,
        ) -> None:
            table = with_artists(read_tracks(root, labelled))
            known = [track.path for track in table.tracks] + [one.path for one in table.skipped]
            assert len(set(known)) == len(known), "a file is there twice"
            files = sum(len(names) for *_, names in os.walk(root))
            counted = len(known) + table.no_audio.total()
            assert links or counted == files, f"{counted} of {files} files are accounted for"
            if labelled:
                drawn, out = draw_split(
                    table.tracks, {t.path: t.path for t in table.tracks}, protocol, 0, "1/5"
                )
                assert len(drawn) + len(out) == len(table.tracks)
                assert all(track.genre for track in drawn)

        yield f"seed {seed}, folder {number}: {protocol}, {labelled}", read
        shutil.rmtree(folder / f"{number}")


def _fill(root: Path, draw: random.Random) -> bool:
    """Fill a folder with files and folders; whether there are links among them."""
    folders, links = [root], False
    for _ in range(draw.choice([1, 3, 6, 12])):
        made = draw.choice(folders[-4:]) / draw.choice(FOLDERS)
        made.mkdir(exist_ok=True)
        folders.append(made)
    for number in range(draw.choice([3, 10, 40])):
        name = f"{draw.choice([*NAMES, '#song', '.song', '._song', ' - '])[:80]}{number}"
        path = os.fsencode(draw.choice(folders) / f"{name}{draw.choice(ENDINGS)}")
        if draw.random() < 0.05:
            path = path.replace(b"song", b"s\xffng")
        with open(path, "wb") as file:
            file.write(draw.choice([b"", b"RIFF"]))
    if draw.random() < 0.2:
        links = True
        target = draw.choice([root, *folders, folders[0] / "absent", Path("/dev/null")])
        with contextlib.suppress(FileExistsError):
            (draw.choice(folders) / draw.choice([*FOLDERS, "link.mp3"])).symlink_to(target)
    return links


# --- tables, spaces, checkpoints, ensembles ---


def table_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Damaged track tables in all forms, read and split."""
    draw = random.Random(seed)
    lines = ["path,genre,track_id,artist,split"]
    for i in range(60):
        split = draw.choice(["train", "valid", "test"])
        artist = draw.choice([f"artist {i // 2}", '"É, F & G"', '"Weird ""Al"" Y."', ""])
        lines.append(f"{i}.wav,{'jazz' if i % 2 else 'rock'},t{i},{artist},{split}")
    plain = "\n".join(lines)
    other = plain.replace(",", ";").replace("path;genre", "File Name;Label").replace("\n", "\r\n")
    tables = [
        plain.encode(),
        plain.encode("utf-16"),
        other.encode("cp1252"),
        "\n".join(line.partition(",t")[0] for line in lines[1:]).encode(),  # without a header
        _as_parquet(lines),
        _as_fma(lines[1:]),
    ]
    (folder / "000").mkdir(exist_ok=True)  # of FMA's audio
    for i in range(60):
        (folder / "000" / f"{i:06d}.mp3").touch()
    path = folder / "tracks.csv"
    for number in range(count):
        table = draw.choice(tables)
        if draw.random() < 0.5:
            others = [*tables, b'"', b"path,genre\r", "π,ü\n".encode("utf-16"), b"s3://"]
            what, data = damaged(table, draw, others)
        else:
            what, data = _mistyped(table, draw)
        path.write_bytes(data)
        protocol = draw.choice(PROTOCOLS)

        def split(protocol: Protocol = protocol) -> None:
            table = read_tracks(path)
            hashes = {track.path: track.path for track in table.tracks}
            drawn, _ = draw_split(table.tracks, hashes, protocol, 0, "1/5")
            assert all(track.genre for track in drawn)

        yield f"seed {seed}, table {number}: {what}, {protocol}", split


def _mistyped(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A few characters that mean something in tables, put in or over others."""
    data = bytearray(content)
    typed = ['"', ",", ";", "\t", "\n", "\r", "\\", " ", "é", ", ", '""', "nan,", "~/", "s3://"]
    encoding = "utf-16-le" if content.startswith(b"\xff\xfe") else "utf-8"
    for _ in range(draw.choice([1, 1, 2, 3])):
        place = draw.randrange(len(data) // 2) * 2
        data[place : place + draw.choice([0, 0, 2])] = draw.choice(typed).encode(encoding)
    return "mistyped", bytes(data)


def _as_parquet(lines: list[str]) -> bytes:
    columns = zip(*csv.reader(lines), strict=True)
    file = io.BytesIO()
    pq.write_table(pa.table({name: cells for name, *cells in columns}), file)
    return file.getvalue()


def _as_fma(lines: list[str]) -> bytes:
    """FMA's three header lines, over the genre, artist and split of each line."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["", "artist", "set", "track"])
    writer.writerow(["", "name", "split", "genre_top"])
    writer.writerow(["track_id", "", "", ""])
    for path, genre, _, artist, split in csv.reader(lines):
        writer.writerow([path.removesuffix(".wav"), artist, split, genre])
    return text.getvalue().encode()


def space_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Damaged spaces, as a user's editor may leave them, in place of that of `gru`."""
    draw = random.Random(seed)
    content = (Path(__file__).parents[1] / "search_spaces/gru.py").read_text().encode()
    names = [b"lr", b"suggest", b"return", b"{", b"}", b"trial", b"import", b"def", b"**", b"None"]
    for number in range(count):
        data = bytearray(content)
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(len(data))
            length = draw.randrange(0, 12)
            data[place : place + length] = draw.choice(names)
        place = (
            folder / f"space-{number}"
        )  # another each time, or Python takes what it has compiled
        place.mkdir()
        (place / "gru.py").write_bytes(data)

        def load(place: Path = place) -> None:
            search_spaces.__path__.insert(0, str(place))
            sys.modules.pop("search_spaces.gru", None)
            try:
                default_params("gru", load_space("gru"))
            finally:
                search_spaces.__path__.remove(str(place))
                sys.modules.pop("search_spaces.gru", None)

        yield f"seed {seed}, space {number}: {bytes(data)[-200:]!r}", load
        shutil.rmtree(place)


def model_cases(folder: Path, models: list[Path], count: int, seed: int) -> Iterator[Case]:
    """Damaged checkpoints and ensembles: bytes of a file, or single values of its JSON."""
    draw = random.Random(seed)
    for number in range(count):
        source = draw.choice(models)
        copy = folder / f"model-{number}"
        shutil.copytree(source, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        path = draw.choice(files)
        if path.suffix == ".json" and draw.random() < 0.7:
            what, content = changed_json(json.loads(path.read_text()), draw)
            path.write_text(json.dumps(content))
        else:
            what, data = damaged(path.read_bytes(), draw, [path.read_bytes(), b"{}", b"\0" * 8])
            path.write_bytes(data)

        def predict(copy: Path = copy) -> None:
            ensemble = load_ensemble(copy)
            if (copy / "config.json").exists():
                load_checkpoint(copy)
            songs = [
                {name: np.zeros((1, f.bands, f.frames), f.dtype) for name, f in one.columns.items()}
                for one in ensemble.inputs
            ]
            features = (TrackFeatures(columns, float("nan"), "") for columns in songs)
            ensemble.predict_song(SongFeatures(tuple(features)))

        yield f"seed {seed}, model {number}: {path.relative_to(copy)}, {what}", predict
        shutil.rmtree(copy)


def changed_json(content: Any, draw: random.Random) -> tuple[str, Any]:
    """Replace one value, anywhere, by one of another kind or size, or delete it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(content)
    node, key = draw.choice(places)
    strange = [
        None,
        -1,
        0,
        10**12,
        2.5,
        "",
        "../../etc/passwd",
        [],
        {},
        "gru",
        True,
        [1] * 5,
        "NaN",
    ]
    value = draw.choice(strange)
    if draw.random() < 0.2:
        del node[key]
        return f"{key} deleted", content
    node[key] = value
    return f"{key} = {value!r}"[:200], content
