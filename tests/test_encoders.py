"""A whole search on the outputs of a pre-trained network beside spectrograms, and its use."""

import importlib.util
import json
from pathlib import Path

import pytest

from mgc_ray.results import FOLDS, load_search
from tests.commands import command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("musicnn") is None, reason="the package musicnn is not installed"
    ),
]


def test_a_search_on_embeddings_beside_spectrograms(tmp_path: Path) -> None:
    options = ("--family", "all", "--features", "musicnn", "log_mel", "--name", "both")
    searched = command("search", *options, "--smoke", "--trials", "8", cwd=tmp_path)
    result = load_search(tmp_path / "results/both")
    families = {record.family for record in result.records}
    assert {"linear", "cnn", "discriminant"} <= families
    assert "transfer" not in families
    (linear,) = (record for record in result.records if record.family == "linear")
    assert FOLDS not in linear.best  # scored on the validation part, as the others are
    assert "Traceback" not in searched.stderr
    song = next((tmp_path / "results/corpora").rglob("*.wav"))
    trials = tmp_path / "results/both/trials"
    for record in result.records:
        config = json.loads((trials / record.trial / "checkpoint/config.json").read_text())
        reads_both = set(config["features"]["columns"]) == {"log_mel", "musicnn"}
        assert reads_both == (record.family in ("cnn", "lstm", "gru", "attention")), record.family
    (gru,) = (record.trial for record in result.records if record.family == "gru")
    for model in ("results/both/ensemble", f"results/both/trials/{gru}/checkpoint"):
        done = command("predict", "--model", model, str(song), "--json", cwd=tmp_path)
        assert sum(json.loads(done.stdout)[0]["genres"].values()) == pytest.approx(1, abs=1e-3)

    command(
        "search",
        "--family",
        "linear",
        "--smoke",
        "--trials",
        "4",
        *options[2:5],
        "--name",
        "one",
        cwd=tmp_path,
    )
    (first, *_) = load_search(tmp_path / "results/one").records
    assert first.best[FOLDS] == first.epochs
    ensemble = "results/one/ensemble"
    done = command("predict", "--model", ensemble, str(song), "--json", cwd=tmp_path)
    (predicted,) = json.loads(done.stdout)
    assert len(predicted["genres"]) == 10
    shown = command(
        "evaluate",
        "--model",
        ensemble,
        "--tracks",
        str(song.parents[1] / "tracks.csv"),
        cwd=tmp_path,
    )
    assert "MSD_musicnn" in (tmp_path / ensemble / "ensemble.json").read_text()
    assert "Traceback" not in shown.stderr
