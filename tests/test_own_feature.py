"""An encoder outside the package, one file in an empty folder, from the search to the server.

In processes of their own, as the users run them: so that no other test has registered the feature,
and so that Ray's workers have to receive it.
"""

import json
from pathlib import Path

import pytest

from mgc_ray.results import load_search
from tests.commands import process
from tests.data.features.made_own import write_encoder
from tests.killing import killed_search
from tests.pipeline.making import music
from tests.server import post_song, running_server

# tests/data/features/test_own.py has the quick part
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SONG = "music/jazz/jazz0.wav"
COPY = "results/own/ensemble/code/features/my_encoder.py"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search on an encoder's outputs, which was killed and resumed.

    Between that the file was changed: the search continues with the one that it began with.
    """
    folder = tmp_path_factory.mktemp("encoder")
    encoder = write_encoder(folder)
    music(folder / "music", 4)
    options = ["--features", "log_mel", "./my_encoder.py", "--family", "linear", "--name", "own"]
    options += ["--tracks", "music", "--trials", "20", "--concurrent", "1"]
    killed_search(folder, *options)
    encoder.write_text(encoder.read_text() + "# changed\n")
    given = ("--features", "log_mel", "./my_encoder.py")
    refused = process("search", "--resume", "own", *given, cwd=folder, status=2)
    assert "the my_encoder.py that it began with, but the one that is given has" in refused.stderr
    process("search", "--resume", "own", "--trials", 21, cwd=folder)
    return folder


def test_a_search_that_was_killed_is_resumed_with_the_file_that_it_began_with(
    searched: Path,
) -> None:
    result = load_search(searched / "results/own")
    assert result.trial_counts.get("completed", 0) > 1
    assert sum(result.trial_counts.values()) == 21
    assert result.config.dataset.features == ("log_mel", "my_encoder")
    assert result.feature_files == (str(searched / "my_encoder.py"),)
    assert str(searched / "my_encoder.py") in (result.folder / "config.toml").read_text()
    assert result.ensemble
    assert ("my_net, licence CC BY 4.0", "frozen", "1,000 hours of folk music") in [
        (one.source, one.protocol, one.task) for one in result.ensemble.trained_on
    ]


def test_a_changed_file_gives_a_new_dataset(searched: Path) -> None:
    args = ("--features", "log_mel", "./my_encoder.py", "--family", "linear", "--tracks", "music")
    process("search", *args, "--trials", 1, "--name", "changed", cwd=searched)
    before, after = (load_search(searched / "results" / name) for name in ("own", "changed"))
    assert Path(before.dataset).name != Path(after.dataset).name
    made = ("--tracks", "music", "--dataset", "data", "--features")
    process("preprocess", *made, "./my_encoder.py", cwd=searched)
    again = (searched / "my_encoder.py").read_text() + "# once more\n"
    (searched / "my_encoder.py").write_text(again)
    refused = process("preprocess", *made, "./my_encoder.py", cwd=searched, status=2)
    assert "the one that is given has changed" in refused.stderr
    process("preprocess", *made, "./my_encoder.py", "--overwrite", cwd=searched)
    trained = ("--dataset", "data", "--family", "linear")
    refused = process("train", *trained, cwd=searched, status=2)
    assert "add --features FILE, the my_encoder.py that it was computed with" in refused.stderr
    process("train", *trained, "--features", "./my_encoder.py", cwd=searched)


def test_a_model_runs_the_file_only_where_it_is_given(searched: Path) -> None:
    predict = ("predict", "--model", "results/own/ensemble", SONG)
    refused = process(*predict, cwd=searched, status=2)
    assert refused.stderr.count("\n") == 1
    assert "add --features FILE, the my_encoder.py that it was computed with" in refused.stderr
    assert "results/own/ensemble/code has a copy: read what it does first" in refused.stderr
    refused = process(*predict, "--features", "./my_encoder.py", cwd=searched, status=2)
    assert "the one that is given has changed" in refused.stderr
    done = process(*predict, "--features", COPY, "--json", cwd=searched)
    (alone,) = json.loads(done.stdout)
    evaluate = ("evaluate", "--model", "results/own/ensemble", "--tracks", "music")
    done = process(*evaluate, "--features", COPY, "--json", cwd=searched)
    assert json.loads(done.stdout)["metrics"]["tracks"] == 8

    library = ("predict", "--model", "results/own/ensemble", "music", "--out", "genres.csv")
    done = process(*library, "--features", COPY, "--json", cwd=searched)
    assert json.loads(done.stdout)["unread"] == 0

    options = ("--model", str(searched / "results/own/ensemble"), "--replicas", "1")
    with running_server(*options, "--features", str(searched / COPY)) as address:
        status, served = post_song(address, "jazz0.wav", (searched / SONG).read_bytes())
    assert status == 200
    assert served["genres"] == pytest.approx(alone["genres"], abs=1e-5)


def test_a_model_is_exported_with_the_description_of_the_file(searched: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export = ("export", "--model", "results/own/ensemble", "--onnx", "own.onnx", SONG)
    process(*export, "--features", COPY, cwd=searched)
    stored = {one.key: one.value for one in onnx.load(searched / "own.onnx").metadata_props}
    inputs = json.loads(stored["preprocessing"])["inputs"]
    assert inputs["my_encoder"]["network"] == "my_net, licence CC BY 4.0"
    assert inputs["my_encoder"]["shape"] == ["chunks", 128, 1]


def test_searches_of_one_encoder_are_put_together(searched: Path) -> None:
    args = ("results/own", "--out", "both")
    assert "--features FILE" in process("ensemble", *args, cwd=searched, status=2).stderr
    process("ensemble", *args, "--features", COPY, cwd=searched)
    assert (searched / "both/code/features/my_encoder.py").exists()
    process("report", "results/own", "--out", "report.html", cwd=searched)
