"""What strangers pass on, damaged or made to harm, and every reader of it.

A folder holds a search with its dataset, ensemble, refit and checkpoint, a saved comparison and the
table of a library. Each case replaces one of their files, or one value in it, and asks one reader
for a result. Nothing outside of the folder may be opened.
"""

import contextlib
import io
import json
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc_ray.data.chunks import load_chunks, open_chunks
from mgc_ray.data.dataset import read_info, read_shard_content, read_skipped, shard_path
from mgc_ray.ensembling.build import candidates_of
from mgc_ray.ensembling.refit import RefitPlan, read_refitted
from mgc_ray.ensembling.saved import load_ensemble, save_ensemble
from mgc_ray.evaluation.compare import compare_searches
from mgc_ray.evaluation.runs import SAVED, read_runs, read_saved, write_saved
from mgc_ray.pipeline.library_table import (
    EMBEDDING,
    Origin,
    read_earlier,
    read_embedded,
    table_schema,
    with_origin,
)
from mgc_ray.reporting.page import write_report
from mgc_ray.results import check_model, load_search, read_ensemble_info
from mgc_ray.task import Score
from mgc_ray.training.checkpoint import load_checkpoint
from mgc_ray.training.initial import check_initial, initial_params
from tests.conftest import make_chunks
from tests.data.made_dataset import written_dataset
from tests.ensembling.made_ensembles import ensemble_of, trained
from tests.fuzzing import Case, changed_json, damaged
from tests.reporting.made_search import record, write_search

WAYS = ("bytes", "link", "pipe", "deep", "bomb", "folder", "gone", "empty", "up")
_PREDICTED = [("a", "Ann", 0, 0.1), ("b", "Bob", 0, 0.4), ("c", "Cy", 1, 0.8), ("d", "Di", 1, 0.3)]


def write_all(folder: Path) -> Path:
    """Everything that can be passed on, undamaged, below FOLDER/results; that folder."""
    results = folder / "results"
    search = results / "first"
    write_search(
        search,
        _PREDICTED,
        [record(number, [0.5, 0.6]) for number in range(3)],
        dataset=str(results / "datasets" / "music"),
    )
    written_dataset(results / "datasets" / "music")
    (results / "datasets" / "music" / "skipped.csv").write_text("path,reason\na.mp3,not audio\n")
    chunks = make_chunks()
    checkpoint = trained(search / "trials" / "gru-0000" / "checkpoint", "gru", chunks)
    shutil.copytree(checkpoint, folder / "member" / "gru")
    ensemble_of(search / "ensemble", [(folder / "member" / "gru", 1.0)], chunks)
    shutil.rmtree(folder / "member")
    refit = search / "refit" / "gru-0000"
    RefitPlan("gru", {}, 1, 1, Score(0.5, 0.0)).write(refit)
    shutil.copytree(checkpoint, refit / "fold-1")
    np.savez(refit / "fold-1" / "held.npz", rows=np.arange(4), probs=np.ones((4, 2)), seconds=1.0)
    (results / "comparison").mkdir()
    write_saved(results / "comparison" / SAVED, *read_runs([search]))
    rows = [{"path": f"{i}.mp3", "genre": "rock", "probability": 0.5, "size": 1, "modified_ns": 2,
             "model": "abc", EMBEDDING: [0.5] * 4} for i in range(5)]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=table_schema(("blues", "rock"), 4))
    pq.write_table(with_origin(table, Origin("music", "model")), results / "songs.parquet")
    return results


def readers(results: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads what `write_all` wrote, by name."""
    search, dataset = results / "first", results / "datasets" / "music"
    model = search / "trials" / "gru-0000" / "checkpoint"

    def shards() -> None:
        info = read_info(dataset)
        for shard in range(min(info.shards, 3)):
            read_shard_content(shard_path(dataset, shard), info)

    def refitted() -> None:
        load_search(search)
        for one in read_refitted(search / "refit"):
            if one.complete:
                _ = one.seconds, one.rows

    def searched() -> None:
        found = load_search(search)
        _ = found.trials, found.best, found.test, found.predictions
        candidates_of(search, found.records)

    def copied() -> None:
        load_search(search)
        info = read_ensemble_info(search / "ensemble", "give another")
        save_ensemble(results / "copy", replace(info, members=info.members[:1]), [model])

    return {
        "search": searched,
        "report": lambda: write_report([search], results / "report.html"),
        "compare": lambda: compare_searches([search]),
        "comparison": lambda: read_saved(results / "comparison" / SAVED),
        "chunks": lambda: load_chunks(dataset, ("train", "valid", "test")),
        "streamed": lambda: [*open_chunks(dataset, ("train",), 0).pieces(np.arange(2))],
        "shards": shards,
        "skipped": lambda: read_skipped(dataset),
        "ensemble": lambda: (load_search(search), load_ensemble(search / "ensemble")),
        "model": lambda: (load_search(search), check_model(search / "ensemble")),
        "checkpoint": lambda: (load_search(search), load_checkpoint(model)),
        "initial": lambda: (
            load_search(search),  # the folder that is given itself may be a link
            check_initial(search / "ensemble"),
            initial_params(search / "ensemble"),
        ),
        "refit": refitted,
        "save": copied,
        "library": lambda: read_embedded(results / "songs.parquet"),
        "earlier": lambda: read_earlier(
            results / "songs.parquet", table_schema(("blues", "rock"), 4)
        ),
    }


_READ_BY = {  # by the beginning of a path
    "first/ensemble": ["ensemble", "model", "initial", "save"],
    "first/trials/gru-0000/checkpoint": ["checkpoint", "save"],
    "first/refit": ["refit"],
    "first": ["search", "report", "compare"],
    "datasets": ["chunks", "streamed", "shards", "skipped", "report"],
    "comparison": ["comparison"],
    "songs": ["library", "earlier"],
}


def stranger_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """One file of a stranger's folder replaced or changed, and one reader of it."""
    draw = random.Random(seed)
    sound = write_all(folder / "sound")
    outside = folder / "outside"
    outside.mkdir(parents=True)
    for name in ("secret", "config.json", "model.safetensors", "trial.json"):
        (outside / name).write_text('{"secret": "secret"}')
    files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file())
    opened = _opened_outside(outside)
    for number in range(count):
        results = folder / f"{number}"
        shutil.copytree(sound, results)
        name, what = draw.choice(files), ""
        for _ in range(draw.choice([1, 1, 1, 2])):
            what += " " + _harm(results / name, outside, draw)
        about = next(part for part in _READ_BY if str(name).startswith(part))
        reader = draw.choice(_READ_BY[about] if draw.random() < 0.9 else [*readers(results)])

        def read(results: Path = results, reader: str = reader) -> None:
            opened.clear()
            try:
                readers(results)[reader]()
            finally:
                assert not opened, f"opened {opened[0]}"
                assert not (outside / "secret2").exists()

        yield f"seed {seed}, stranger {number}: {name},{what}, read as {reader}", read
        shutil.rmtree(results)


_hooked: list[tuple[str, list[str]]] = []


def _opened_outside(outside: Path) -> list[str]:
    """What Python opens below a folder, from now on; see strace for what libraries open."""
    found: list[str] = []
    if not _hooked:
        sys.addaudithook(_note)
    _hooked.append((os.path.realpath(outside), found))
    return found


def _note(event: str, args: tuple[Any, ...]) -> None:
    if event in ("open", "shutil.copyfile", "os.listdir", "os.remove", "shutil.rmtree") and args:
        with contextlib.suppress(TypeError, ValueError):
            path = os.path.realpath(args[0])
            for place, found in _hooked:
                if path.startswith(place):
                    found.append(f"{event} {path}")


def _harm(path: Path, outside: Path, draw: random.Random) -> str:
    """Replace a file, or change it; what was done."""
    if path.is_symlink() or not path.is_file():
        return "nothing"
    with contextlib.suppress(OSError, ValueError, IndexError, RecursionError):
        if path.suffix == ".json" and draw.random() < 0.5:
            what, content = changed_json(json.loads(path.read_text()), draw)
            path.write_text(json.dumps(content))
            return what
        way = draw.choice(
            ["bytes", "link", "pipe", "deep", "bomb", "folder", "gone", "empty", "up"]
        )
        if way == "bytes":
            what, data = damaged(path.read_bytes(), draw, [path.read_bytes(), b"{}", b"\0" * 8])
            path.write_bytes(data)
            return what
        content = path.read_bytes()
        path.unlink()
        if way == "link":
            path.symlink_to(draw.choice([outside / "secret", outside, "/etc/passwd", "/dev/zero"]))
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "deep":
            depth = draw.choice([70, 900, 200_000])
            path.write_text('{"a":' * depth + "1" + "}" * depth)
        elif way == "bomb":
            path.write_bytes(_bomb(path.suffix))
        elif way == "folder":
            path.mkdir()
        elif way == "empty":
            path.touch()
        elif way == "up":  # the folder that it is in is a link
            place = path.parent
            if place.name in ("checkpoint", "fold-1", "gru", "chunks", "gru-0000", "ensemble"):
                shutil.rmtree(place)
                place.symlink_to(outside)
            else:
                path.write_bytes(content)
        return way
    return "nothing"


_bombs: dict[str, bytes] = {}


def _bomb(suffix: str) -> bytes:
    """A few kilobytes that stand for more than a gibibyte, of the kind of a file."""
    if suffix not in _bombs:
        made = io.BytesIO()
        if suffix == ".parquet":
            table = pa.table({"path": ["x" * 8000] * 4000, "track_id": ["y" * 8000] * 4000})
            with pq.ParquetWriter(made, table.schema) as writer:
                for _ in range(20):  # 1.2 GiB
                    writer.write_table(table)
        elif suffix == ".npz":
            header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 27,)}
            with (
                zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
                file.open("rows.npy", "w", force_zip64=True) as entry,
            ):
                np.lib.format.write_array_header_1_0(entry, header)
                for _ in range(1024):
                    entry.write(bytes(1 << 20))
        else:
            made.write(b"[" + b"0," * (1 << 20) + b"0]")
        _bombs[suffix] = made.getvalue()
    return _bombs[suffix]
