"""Damaged music, tables, spaces and models end with a result or a reason, from fixed seeds.

A part of the cases of tests/benchmarks/bad_input.py.
"""

from pathlib import Path

import pytest

from mgc_ray.data.chunks import Chunks
from mgc_ray.training.checkpoint import save_checkpoint
from mgc_ray.training.loop import train
from tests import fuzzing, strangers

TINY = {"blocks": 2, "channels": 4, "hidden": 8, "batch_size": 8, "max_epochs": 1}


def test_damaged_music(tmp_path: Path) -> None:
    counts, wrong = fuzzing.run_cases(fuzzing.music_cases(tmp_path, 2000, seed=0))
    assert not wrong
    assert min(counts["result"], counts["refused"]) > 300


def test_damaged_tables(tmp_path: Path) -> None:
    counts, wrong = fuzzing.run_cases(fuzzing.table_cases(tmp_path, 2000, seed=0))
    assert not wrong
    assert min(counts["result"], counts["refused"]) > 200


def test_folders_of_any_layout(tmp_path: Path) -> None:
    counts, wrong = fuzzing.run_cases(fuzzing.folder_cases(tmp_path, 400, seed=0))
    assert not wrong
    assert min(counts["result"], counts["refused"]) > 40


def test_damaged_spaces(tmp_path: Path) -> None:
    counts, wrong = fuzzing.run_cases(fuzzing.space_cases(tmp_path, 500, seed=0))
    assert not wrong
    assert counts["refused"] > 300


def test_what_strangers_pass_on(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    for call in strangers.readers(strangers.write_all(tmp_path / "sound")).values():
        call()
    cases = strangers.stranger_cases(tmp_path / "cases", 150, seed=0)
    counts, wrong = fuzzing.run_cases(cases)
    assert not wrong
    assert min(counts["result"], counts["refused"]) > 20


@pytest.mark.parametrize("family", ["gru", "attention", "statistics", "discriminant"])
def test_damaged_models(tmp_path: Path, family: str, chunks: Chunks) -> None:
    params = {"max_epochs": 1, "batch_size": 8} | (TINY if family == "gru" else {})
    epoch = next(train(family, params, chunks, autocast=False))
    save_checkpoint(tmp_path / "sound", epoch, family, params, chunks.info)
    cases = fuzzing.model_cases(tmp_path, [tmp_path / "sound"], 200, seed=0)
    counts, wrong = fuzzing.run_cases(cases)
    assert not wrong
    assert min(counts["result"], counts["refused"]) > 20
