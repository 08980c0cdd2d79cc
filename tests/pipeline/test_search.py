"""A whole search: what it reads how often, what its metric decides, and how it is repeated."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mgc_ray.config import Metric
from mgc_ray.results import SearchResult, TrialRecord, load_search
from tests.commands import command
from tests.pipeline.making import music, without_other_clusters
from tests.tuning.test_tracking import Hearing

# python imports this at the start of each process, also of Ray's: it notes each decoded file
NOTE_DECODED_FILES = """
import os, sys
log = os.environ["DECODED_FILES"]

def note(event, args):
    if event == "mgc_ray.decode":
        with open(log, "a") as file:
            file.write(f"{args[0]}\\n")

sys.addaudithook(note)
"""

# runs the command, and notes in their order the calls of what should be called once
COUNT_CALLS = """
import sys

from mgc_ray import search
from mgc_ray.pipeline import search as pipeline
from mgc_ray.pipeline import tables
from mgc_ray.tuning import recovery
from mgc_ray.tuning.cluster import Cluster

log = sys.argv.pop(1)

def count(place, name, note=lambda *args: ""):
    original = getattr(place, name)

    def counted(*args, **kwargs):
        with open(log, "a") as file:
            file.write(f"{name}{note(*args)}\\n")
        return original(*args, **kwargs)

    setattr(place, name, counted)

from mgc_ray import results
from mgc_ray.ensembling import build

def parts(*args):
    return " " + "+".join(args[1])

count(tables, "read_tracks")
count(Cluster, "share")
count(pipeline, "preprocess")
count(pipeline, "run_trials")
count(pipeline, "test_ensemble")
count(pipeline, "write_report")
for place in (results, recovery):
    count(place, "read_records")
for place in (pipeline, build):
    count(place, "open_chunks", parts)
count(build, "_predict", lambda classifiers, chunks: " " + "+".join(sorted(set(chunks.split))))
raise SystemExit(search.main(sys.argv[1:]))
"""


def test_a_search_in_a_process_of_its_own_does_everything_once(tmp_path: Path) -> None:
    """Each file is decoded once for all features; tables, records and test part are read once."""
    music(tmp_path / "music", 5)
    (tmp_path / "music/jazz/text.wav").write_text("no audio")
    (tmp_path / "start").mkdir()
    (tmp_path / "start/sitecustomize.py").write_text(NOTE_DECODED_FILES)
    args = ["--family", "gru", "--smoke", "--tracks", "music", "--name", "counted", "--json"]
    args += ["--concurrent", "1"]
    done = subprocess.run(
        [sys.executable, "-c", COUNT_CALLS, str(tmp_path / "calls"), *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        env=without_other_clusters()
        | {"PYTHONPATH": str(tmp_path / "start"), "DECODED_FILES": str(tmp_path / "decoded")},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]
    decoded = Counter((tmp_path / "decoded").read_text().splitlines())
    files = [str(path) for path in (tmp_path / "music").rglob("*.wav")]
    assert len(files) == 11
    # the report reads each song that it embeds again: is it the one that was predicted?
    embedded = (tmp_path / "results/counted/report.html").read_text("utf-8").count("<audio")
    assert decoded.keys() == set(files)
    assert decoded.total() == len(files) + embedded
    assert (tmp_path / "calls").read_text().splitlines() == [
        "read_tracks",
        "read_records",
        "share",
        "preprocess",
        "open_chunks train+valid",
        "run_trials",
        "open_chunks valid",
        "_predict valid",
        "test_ensemble",
        "open_chunks test",
        "_predict test",
        "write_report",
    ]


KEYS: dict[Metric, str] = {
    "track_accuracy": "val_track_accuracy",
    "macro_f1": "val_macro_f1",
    "log_loss": "val_log_loss",
}


@pytest.mark.parametrize(
    "metric",
    [
        pytest.param("track_accuracy", marks=pytest.mark.slow),  # that of all other searches
        pytest.param("macro_f1", marks=pytest.mark.slow),
        "log_loss",
    ],
)
def test_the_metric_decides_on_best_epochs_and_the_order_of_trials(
    home: Path, metric: Metric
) -> None:
    def value(metrics: dict[str, float]) -> float:
        """The higher the better."""
        return -metrics[KEYS[metric]] if metric == "log_loss" else metrics[KEYS[metric]]

    def rank(record: TrialRecord) -> tuple[float, float]:
        return value(record.best), -record.best["val_loss"]

    name = f"by-{metric}"
    done = command(
        "search",
        *("--family", "statistics", "--smoke", "--trials", 5, "--max-epochs", 4),
        *("--metric", metric, "--name", name, "--json", "--warm-start", "first"),
        *("--concurrent", 1),  # one process of Ray to start, here and below
        cwd=home,
    )
    known = "its results are known"
    use = known if metric == "track_accuracy" else "another metric, its best settings first"
    assert f"starting from first: {use}\n" in done.stderr
    folder = home / "results" / name
    records = load_search(folder).records
    assert len(records) == 5
    for record in records:
        assert record.metric == metric
        best = max(range(record.epochs), key=lambda i: (value(record.curve[i]), -i))
        assert value(record.best) == value(record.curve[best])
    assert records == sorted(records, key=rank, reverse=True)
    assert len({rank(record) for record in records}) > 2
    content = json.loads(done.stdout)
    assert content["best_trial"]["trial"] == records[0].trial
    assert content["config"]["metric"] == metric
    with open(folder / "leaderboard.csv", newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [r.trial for r in records]
    heading = {"track_accuracy": "track accuracy", "macro_f1": "macro-F1", "log_loss": "log-loss"}
    assert f"trial            {heading[metric]}  epochs" in done.stderr


def test_searches_that_were_ranked_by_different_metrics_make_no_ensemble(home: Path) -> None:
    shutil.copytree(home / "results/first", home / "results/by-f1")
    path = home / "results/by-f1/search.json"
    content = json.loads(path.read_text())
    content["config"]["metric"] = "macro_f1"
    path.write_text(json.dumps(content))
    searches = ("results/first", "results/by-f1")
    refused = command("ensemble", *searches, "--out", "mixed", cwd=home, status=2)
    assert "must have been ranked by one metric" in refused.stderr
    assert "first was by track_accuracy" in refused.stderr
    assert "by-f1 by macro_f1: run one of them again by the other's --metric" in refused.stderr
    assert not (home / "mixed").exists()


def _outcomes(result: SearchResult) -> list[dict[str, Any]]:
    """The leaderboard without the seconds."""
    table = result.trials.drop(columns=["seconds"])
    return list(table.to_dict("records"))


def test_the_configuration_file_of_a_search_repeats_it(home: Path) -> None:
    """With one trial at a time; all settings that were given are in the file."""
    command(
        "search",
        *("--family", "statistics", "--smoke", "--trials", 3, "--concurrent", 1, "--seed", 5),
        *("--metric", "macro_f1", "--set", "hidden=64", "--set", "tuning.keep=2"),
        *("--name", "original"),
        cwd=home,
    )
    config = home / "results/original/config.toml"
    command("search", "--config", config, "--name", "repeated", cwd=home)
    original, repeated = (load_search(home / "results" / n) for n in ("original", "repeated"))
    assert _outcomes(repeated) == _outcomes(original)
    assert len(original.records) == 3
    assert repeated.config.train == {"hidden": 64}
    assert original.test
    assert repeated.test
    assert repeated.test.confusion_matrix == original.test.confusion_matrix
    # options take precedence over the file
    refused = command("search", "--config", config, cwd=home, status=2)
    assert "original exists already" in refused.stderr
    assert config.read_text() == (home / "results/repeated/config.toml").read_text().replace(
        'name = "repeated"', 'name = "original"'
    )


def test_an_interrupted_search_has_results_too(home: Path) -> None:
    """What a search that was killed between its trials and its ensemble leaves behind."""
    folder = home / "results/interrupted"
    args = ("--family", "statistics", "--smoke", "--name", "interrupted", "--concurrent", 1)
    command("search", *args, cwd=home)
    _interrupt(folder)
    result = load_search(folder)
    assert not result.finished
    assert result.best
    assert result.test is None
    assert len(result.trials) == 2
    done = command("search", "--resume", "interrupted", "--json", cwd=home)
    resumed = json.loads(done.stdout)
    assert (resumed["finished"], resumed["resumed"]) == (True, True)
    assert "2 trials ended before, 0 continue from their last epoch" in done.stderr
    assert resumed["ensemble"]["models"]["ensemble"]["test"]["tracks"] == 30


def _interrupt(search: Path) -> None:
    """As a search is that was killed between its trials and its ensemble."""
    content = json.loads((search / "search.json").read_text())
    content |= {"finished": False, "ensemble": None, "best_trial": None}
    (search / "search.json").write_text(json.dumps(content))


def test_a_search_continues_with_its_split_when_the_music_has_changed(home: Path) -> None:
    """Or its ensemble would be tested on tracks that its members were trained on."""
    music, search = home / "changing_music", home / "results/changing"
    shutil.copytree(home / "results/corpora/built-in-9x3s", music, ignore=_no_csv)
    args = ("--family", "statistics", "--smoke", "--concurrent", 1, "--name", "changing")
    command("search", *args, "--tracks", music, cwd=home)
    first = load_search(search)
    _interrupt(search)
    next((music / "rock").iterdir()).unlink()
    command("search", "--resume", "changing", cwd=home)
    resumed = load_search(search)
    assert resumed.dataset == first.dataset
    assert resumed.test == first.test
    assert len(list((home / "results/datasets").glob("changing_music-*"))) == 1
    split_ids = {first.split_id, resumed.split_id, resumed.predictions.split_id}
    split_ids |= {record.split_id for record in resumed.records}
    assert resumed.ensemble
    assert split_ids == {resumed.ensemble.split_id}
    assert "" not in split_ids
    # the dataset is gone, and what is made from the music now is split otherwise
    _interrupt(search)
    shutil.move(home / first.dataset, home / "away")
    refused = command("search", "--resume", "changing", cwd=home, status=2)
    assert "changing cannot be resumed: its dataset" in refused.stderr
    assert "Put the dataset or the music back" in refused.stderr
    assert not load_search(search).finished
    # the music is gone, and the dataset is there again
    shutil.move(home / "away", home / first.dataset)
    shutil.rmtree(music)
    command("search", "--resume", "changing", cwd=home)
    assert load_search(search).test == first.test


def _no_csv(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".csv", ".json"))]


def test_a_time_limit_before_the_end_of_any_epoch_ends_the_search_with_the_remedy(
    home: Path,
) -> None:
    args = ("--family", "statistics", "--smoke", "--name", "short", "--time-limit", 0.001)
    failed = command("search", *args, "--concurrent", 1, cwd=home, status=1)
    assert failed.stderr.splitlines()[-1] == (
        "mgc-ray search: no trial came to the end of its first epoch within the time limit of "
        "0.001 s: increase --time-limit"
    )
    assert not load_search(home / "results/short").finished


def test_a_search_of_which_all_trials_fail_ends_with_the_first_reason(home: Path) -> None:
    args = ("--family", "statistics", "--smoke", "--name", "failing", "--set", "lr=1e30")
    (home / "heard.py").write_text(
        "class Heard:\n"
        "    def on_search_end(self, search):\n"
        "        open('failure', 'w').write(search.failure)\n"
    )
    args += ("--callbacks", "heard.py")
    failed = command("search", *args, "--concurrent", 1, cwd=home, status=1)
    reason = load_search(home / "results/failing").failure
    assert (home / "failure").read_text() == reason
    assert "loss is nan in epoch 1" in reason
    assert f"all 2 trials failed; the first: {reason}; all reasons are in" in failed.stderr


def test_a_search_whose_first_trials_all_fail_alike_starts_no_more(home: Path) -> None:
    """The epochs and steps in their reasons are of no account."""
    args = ("--family", "statistics", "--smoke", "--name", "alike", "--set", "lr=1e30")
    failed = command("search", *args, "--trials", 20, "--concurrent", 2, cwd=home, status=1)
    result = load_search(home / "results/alike")
    text = (
        r"all trials failed, [3-6] of them alike, so no more are started; the first: .*loss is nan"
    )
    assert re.search(text, failed.stderr)
    assert "lower the learning rate (--set lr=0.0001) and search under another" in failed.stderr
    assert 3 <= len(result.records) <= 6  # some diverge in training, some only in validation
    assert not result.finished
    assert "loss is nan" in result.failure


def test_run_search_is_the_command_as_a_function(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mgc_ray
    from mgc_ray import TuneConfig

    monkeypatch.chdir(home)
    callback = Hearing()
    result = mgc_ray.run_search(
        family="statistics",
        smoke=True,
        name="library",
        tuning=TuneConfig(trials=1, max_epochs=1),
        callbacks=(callback,),
    )
    assert callback.heard == [
        *(("search", "library"), ("start", "statistics-0000"), ("epoch", 1)),
        *(("end", "completed"), ("finished", True)),
    ]
    assert result.finished
    assert (len(result.trials), result.epochs) == (1, 1)
    assert os.path.exists(result.folder / "ensemble/ensemble.json")
    assert mgc_ray.load_search(result.folder).test == result.test
