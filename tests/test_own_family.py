"""A model family outside the package: one file in an empty folder, or an installed package.

In processes of their own, as the users run them: so that no other test has registered the family,
and so that Ray's workers have to receive it.
"""

import json
import os
from pathlib import Path

import pytest

from mgc_ray.results import load_search, read_records
from tests.commands import process
from tests.killing import killed_search
from tests.pipeline.making import music

FAMILY = '''
"""The mean of each band, and one hidden layer."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Config:
    width: int = 8
    receptive_samples: int = 66_000


class Model(nn.Module):
    def __init__(self, config, bands, genres):
        super().__init__()
        self.hidden = nn.Linear(bands, config.width)
        self.head = nn.Linear(config.width, genres)

    def embed(self, x):
        return self.hidden(x.mean(2)).relu()

    def forward(self, x):
        return self.head(self.embed(x))


def suggest(trial):
    return {
        "width": trial.suggest_int("width", 4, 16),
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
    }
'''


@pytest.mark.slow  # tests/models/test_families.py has the quick part
def test_a_family_in_a_file_can_be_searched_killed_resumed_and_predicted_with(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_family.py").write_text(FAMILY)
    music(tmp_path / "music", 4)
    folder = tmp_path / "results/own"
    options = ["--family", "./my_family.py", "--tracks", "music", "--name", "own"]
    options += ["--trials", "3", "--max-epochs", "40", "--concurrent", "1"]
    options += ["--set", "patience=40", "--set", "tuning.grace_period=40"]
    killed_search(tmp_path, *options)
    ended = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/trial.json")}
    assert 1 <= len(ended) < 3

    done = process("search", "--resume", "own", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["trial_counts"] == {"completed": 3}
    assert {path: path.stat().st_mtime_ns for path in ended} == ended
    records = read_records(folder / "trials")
    assert [record.trial for record in records] == [f"my_family-{i:04d}" for i in range(3)]
    assert set(records[0].params) == {"width", "lr", "patience"}
    assert records[0].params["width"] == 8  # the defaults first
    assert load_search(folder).test
    # config.toml repeats the search from any folder
    assert f'"{tmp_path / "my_family.py"}"' in (folder / "config.toml").read_text()

    song = "music/jazz/jazz0.wav"
    predict = ("predict", "--model", "results/own/ensemble", song)
    done = process(*predict, "--family", "./my_family.py", cwd=tmp_path)
    assert done.stdout.startswith(f"{song}: ")
    refused = process(*predict, cwd=tmp_path, status=2)
    assert refused.stderr.count("\n") == 1
    assert "my_family" in refused.stderr
    assert "--family" in refused.stderr


def _install(folder: Path) -> None:
    """Write what an installation of a package with an entry point leaves."""
    (folder / "band_means.py").write_text(FAMILY)
    metadata = folder / "band_means-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: band-means\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mgc_ray.families]\nbands = band_means\n")


@pytest.mark.slow
def test_a_family_of_an_installed_package_can_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    _install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    music(tmp_path / "music", 4)
    args = ("--family", "bands", "--smoke", "--tracks", "music", "--name", "installed", "--json")
    done = process("search", *args, cwd=tmp_path)
    assert json.loads(done.stdout)["best_trial"]["family"] == "bands"
    song = "music/jazz/jazz0.wav"
    model = "results/installed/ensemble"
    assert process("predict", "--model", model, song, cwd=tmp_path).stdout.startswith(song)


def test_a_family_of_an_installed_package_is_listed_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = process("search", "--family", "bands", "--help", cwd=tmp_path)
    assert "settings of the family bands" in done.stdout
    assert "width: a whole number; default 8" in done.stdout
    assert os.environ["PYTHONPATH"] not in done.stdout
