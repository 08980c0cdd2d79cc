"""The built-in corpus on disk: one folder per genre, a table, and no half-written file."""

import csv
import json
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from mgc_ray import RequestError
from mgc_ray.corpus.composer import VERSION, synthesise
from mgc_ray.corpus.files import write_corpus
from mgc_ray.corpus.instruments import SAMPLE_RATE


def files_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_a_corpus_has_one_folder_per_genre_and_a_table_of_its_tracks(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    table = write_corpus(
        tmp_path / "corpus", 4, 1, 0.5, workers=1, progress=lambda *at: calls.append(at)
    )
    assert table == tmp_path / "corpus" / "tracks.csv"
    assert calls == [(done, 40) for done in range(1, 41)]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert rows[3] == {
        "path": "blues/blues.00003.wav",
        "genre": "blues",
        "track_id": "blues.00003",
        "artist": "blues artist 01 of seed 1",
    }
    assert json.loads((table.parent / "corpus.json").read_text())["seconds"] == 0.5
    written = {p.relative_to(table.parent).as_posix() for p in table.parent.rglob("*.*")}
    assert written == {row["path"] for row in rows} | {"tracks.csv", "corpus.json"}
    with wave.open(str(table.parent / rows[3]["path"])) as file:
        assert file.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE // 2)
        samples = np.frombuffer(file.readframes(-1), dtype="<i2") / 32767
    np.testing.assert_allclose(samples, synthesise("blues", 3, 1, 0.5), atol=1 / 32767)


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one", 1, 3, 0.1, workers=1)
    write_corpus(tmp_path / "two", 1, 3, 0.1, workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_an_interrupted_corpus_continues_where_it_stopped(tmp_path: Path) -> None:
    def stop_at_seven(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "a", 1, 0, 0.1, workers=1, progress=stop_at_seven)
    assert (tmp_path / "a" / "corpus.json").exists()
    assert not (tmp_path / "a" / "tracks.csv").exists()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.wav")}
    assert len(finished) == 7
    broken = tmp_path / "a" / "blues" / "blues.00000.wav"
    broken.write_bytes(b"RIFF")  # what a full disk leaves

    calls: list[tuple[int, int]] = []
    write_corpus(tmp_path / "a", 1, 0, 0.1, workers=1, progress=lambda *at: calls.append(at))
    assert calls == [(6, 10), (7, 10), (8, 10), (9, 10), (10, 10)]
    kept = {path: path.stat().st_mtime_ns for path in finished if path != broken}
    assert kept == {path: time for path, time in finished.items() if path != broken}
    write_corpus(tmp_path / "b", 1, 0, 0.1, workers=1)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_folder_with_another_corpus_is_refused(
    tmp_path: Path,
) -> None:
    write_corpus(tmp_path, 1, 0, 0.1, workers=1)
    before = files_of(tmp_path)
    with pytest.raises(
        RequestError,
        match=f"was made with seed 0, seconds 0.1, tracks_per_genre 1, version {VERSION}, and now "
        f"it is seed 4, seconds 0.1, tracks_per_genre 2, version {VERSION}: choose another folder",
    ):
        write_corpus(tmp_path, 2, 4, 0.1, workers=1)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: write_corpus(Path("x"), 0), "`tracks_per_genre >= 1` must hold, but got 0: ask"),
        (lambda: write_corpus(Path("x"), 1, workers=0), "`workers >= 1` must hold, but got 0: lea"),
        (lambda: write_corpus(Path("x"), 1, seconds=-1), "`seconds > 0` must hold, but got -1"),
    ],
)
def test_a_bad_argument_is_refused_with_rule_value_and_remedy(call, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RequestError, match=re.escape(text)):
        call()
    assert not Path("x").exists()


def test_the_command_imports_neither_torch_nor_ray_nor_librosa() -> None:
    code = "import sys, mgc_ray.synth; print({'torch', 'ray', 'librosa'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
