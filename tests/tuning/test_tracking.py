"""Callbacks: which are taken, what they hear, and that none harms a search."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mgc_ray
from mgc_ray import RequestError
from mgc_ray.config import SearchConfig
from mgc_ray.data.storage import Storage
from mgc_ray.pipeline.request import search_defaults
from mgc_ray.results import COMPLETED, SearchResult, TrialRecord
from mgc_ray.tuning import tracking
from mgc_ray.tuning.tensorboard import TensorBoardWriter
from mgc_ray.tuning.tracking import apart, load_callbacks, with_names
from tests.commands import process
from tests.killing import killed_search
from tests.pipeline.making import music
from tests.tuning.driving import Driver, begin

SEARCH = SearchResult("a", SearchConfig(family=("gru",), name="a"), "typed", "music", {})
FILE = '''
"""Writes what it hears into a file."""

import json
from pathlib import Path


class Heard:
    def __init__(self):
        self.file = Path("heard.jsonl")

    def write(self, *what):
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\\n")

    def on_search_start(self, search):
        self.write("search", search.name, search.resumed)

    def on_trial_start(self, trial):
        self.write("start", trial.trial, trial.epochs)

    def on_epoch(self, trial):
        self.write("epoch", trial.trial, trial.epochs)

    def on_trial_end(self, trial):
        self.write("end", trial.trial, trial.status)
        raise OSError("the tracker is away")

    def on_search_end(self, search):
        self.write("finished", search.finished, search.test.tracks)
'''


class Hearing(mgc_ray.Callback):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_search_start(self, search: SearchResult) -> None:
        self.heard.append(("search", search.name))

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.heard.append(("start", trial.trial))

    def on_epoch(self, trial: TrialRecord) -> None:
        self.heard.append(("epoch", trial.epochs))

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.heard.append(("end", trial.status))

    def on_search_end(self, search: SearchResult) -> None:
        self.heard.append(("finished", search.finished))


def trial(epochs: int = 1) -> TrialRecord:
    return TrialRecord("gru-0000", "gru", {"lr": 0.1}, curve=[{"val_loss": 1.0}] * epochs)


# ---- which are taken ----


def test_a_file_an_object_and_a_class_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "_objects", {})
    Path("mine.py").write_text(FILE)
    first, second = Hearing(), Hearing()
    names = with_names({"callbacks": ["./mine.py", first, second, Hearing]})["callbacks"]
    assert names == [str(tmp_path / "mine.py"), "Hearing", "Hearing_", "Hearing__"]
    loaded = load_callbacks(names)
    assert type(loaded[names[0]]).__name__ == "Heard"
    assert (loaded["Hearing"], loaded["Hearing_"]) == (first, second)
    assert type(loaded["Hearing__"]) is Hearing
    # as a single one, as a list on a command line, and in a file of settings
    assert with_names({"callbacks": first}) == {"callbacks": ["Hearing"]}
    assert SearchConfig(callbacks="mlflow").callbacks == ("mlflow",)
    assert search_defaults({"callbacks": "mlflow"})["callbacks"] == ["mlflow"]


def test_a_callback_of_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tracker.py").write_text(FILE)
    metadata = tmp_path / "my_tracker-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tracker\nVersion: 1.0\n")
    points = "[mgc_ray.callbacks]\nheard = my_tracker:Heard\nnone = my_tracker:Absent\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert type(load_callbacks(["heard"])["heard"]).__name__ == "Heard"
    with pytest.raises(RequestError, match="none cannot be used: AttributeError"):
        load_callbacks(["none"])
    with pytest.raises(RequestError, match=r"--callbacks must be heard, mlflow.*'herd' \(nearest"):
        load_callbacks(["herd"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("class A:\n    def on_epoch(", "cannot be read as Python"),
        ("x = 3", "must have one class with on_search_start or .*, but it has 0"),
        ("from mgc_ray import Callback", "but it has 0"),
        (
            "class A:\n    def on_epoch(self, t): ...\nclass B:\n    def on_epoch(self, t): ...",
            "but it has 2",
        ),
        (
            "class A:\n    def on_epoch(self, t): ...\n    def on_trial_ended(self, t): ...",
            r"but it has 'on_trial_ended' \(nearest: on_trial_end\)",
        ),
        ("class A:\n    def __init__(self): 1 / 0\n    def on_epoch(self, t): ...", "line 2"),
        ("import no_such_tracker", "No module named 'no_such_tracker', line 1"),
    ],
)
def test_a_file_without_a_callback_that_can_be_used_is_refused(
    tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(RequestError, match=reason):
        load_callbacks([str(tmp_path / "mine.py")])


@pytest.mark.parametrize("given", [3, object(), {"a": 1}, lambda trial: None, None])
def test_an_object_that_hears_nothing_is_refused(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_objects", {})
    names = with_names({"callbacks": [given]})["callbacks"]
    with pytest.raises(RequestError, match="must be an object with some of on_search_start"):
        load_callbacks(names)


def test_a_search_that_is_resumed_continues_without_what_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone.py")
    assert load_callbacks([gone], resumed=True) == {}
    assert f"the search continues without the callback {gone}: " in capsys.readouterr().err


# ---- what they hear ----


def test_a_callback_hears_of_each_trial_and_epoch_in_order(tmp_path: Path) -> None:
    callback = Hearing()
    driver = Driver(begin(tmp_path / "results", Storage(str(tmp_path / "bucket"))))
    with apart({"mine": callback}) as callbacks:
        driver.log._callbacks = [*driver.log._callbacks, *callbacks]
        started = driver.start()
        while driver.running:
            started.step()
    assert callback.heard == [
        *(("start", "gru-0000"), ("epoch", 1), ("epoch", 2)),
        ("end", COMPLETED),
    ]


def test_tensorboard_is_such_a_callback() -> None:
    assert issubclass(TensorBoardWriter, mgc_ray.Callback)


def test_what_a_callback_hears_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    class Changing:
        def on_epoch(self, trial: TrialRecord) -> None:
            trial.params.clear()
            trial.curve.clear()

        def on_search_end(self, search: SearchResult) -> None:
            search.versions["mine"] = "1"

    record = trial()
    with apart({"changing": Changing()}) as (callback,):
        callback.on_epoch(record)
        callback.on_trial_end(record)  # which it has no method for
        callback.on_search_end(SEARCH)
    assert record == trial()
    assert SEARCH.versions == {}
    assert capsys.readouterr().err == ""


# ---- that none harms a search ----


@pytest.mark.parametrize("error", [ValueError("no\nsuch thing"), SystemExit(3), MemoryError()])
def test_an_error_in_a_callback_is_said_once_and_it_goes_on(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Hearing):
        def on_epoch(self, trial: TrialRecord) -> None:
            super().on_epoch(trial)
            raise error

    failing, other = Failing(), Hearing()
    with apart({"/x/failing.py": failing, "other": other}) as callbacks:
        for number in (1, 2, 3):
            for callback in callbacks:
                callback.on_epoch(trial(number))
    assert failing.heard == other.heard == [("epoch", 1), ("epoch", 2), ("epoch", 3)]
    printed = capsys.readouterr().err
    reason = {"ValueError": "no"}.get(type(error).__name__, "")
    assert printed.count("WARNING") == 1
    assert f"the callback failing failed in on_epoch ({type(error).__name__}: {reason}" in printed
    assert "Traceback" not in printed


def test_a_callback_that_hangs_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "_LAST_SECONDS", 1.4)
    monkeypatch.setattr(tracking, "_QUIET_SECONDS", 0.2)
    end = threading.Event()

    class Hanging:
        def on_trial_start(self, trial: TrialRecord) -> None:
            end.wait(60)

    started = time.monotonic()
    with apart({"hanging": Hanging()}) as (callback,):
        for _ in range(1000):
            callback.on_trial_start(trial())
    end.set()
    assert time.monotonic() - started < 20
    printed = capsys.readouterr().err
    assert "waiting for the callback hanging, 1 s at most" in printed
    assert "the callback hanging has not come to its end: it is left alone" in printed


def test_the_search_does_not_wait_long_where_it_is_stopped() -> None:
    end = threading.Event()

    class Hanging:
        def on_epoch(self, trial: TrialRecord) -> None:
            end.wait(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), apart({"hanging": Hanging()}) as (callback,):
        callback.on_epoch(trial())
        raise KeyboardInterrupt
    end.set()
    assert time.monotonic() - started < 8  # of the nine seconds after which it would be killed


# ---- a whole search ----


@pytest.mark.slow
@pytest.mark.timeout(600)  # Ray starts twice
def test_a_search_that_is_killed_and_resumed_is_heard_of_and_not_harmed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    music(tmp_path / "music", 4)
    options = ["--family", "gru", "--tracks", "music", "--name", "own", "--callbacks", "./mine.py"]
    options += ["--trials", "3", "--max-epochs", "6", "--concurrent", "1"]
    options += ["--set", "patience=40", "--set", "tuning.grace_period=6"]
    killed_search(tmp_path, *options)
    before = _heard(tmp_path)
    assert before[0] == ["search", "own", False]
    assert ["start", "gru-0000", 0] in before
    assert ["epoch", "gru-0000", 6] in before

    done = process("search", "--resume", "own", cwd=tmp_path)
    assert done.stderr.count("the callback mine failed in on_trial_end (OSError: the tracker") == 1
    after = _heard(tmp_path)[len(before) :]
    assert after[0] == ["search", "own", True]
    assert after[-1][:2] == ["finished", True]
    ended = {name for what, name, *_ in before + after if what == "end"}
    assert ended | {"gru-0000"} == {"gru-0000", "gru-0001", "gru-0002"}
    for name in {name for what, name, *_ in after if what == "end"}:
        epochs = [one[2] for one in after if one[0] == "epoch" and one[1] == name]
        assert epochs == list(range(1, len(epochs) + 1))  # also those before it was killed


def _heard(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "heard.jsonl").read_text().splitlines()]


def test_the_names_of_callbacks_do_not_make_another_search() -> None:
    from mgc_ray.settings import options

    (option,) = (one for one in options(SearchConfig) if one.name == "callbacks")
    assert not option.compared
    assert replace(SEARCH.config, callbacks=("mlflow",)).callbacks == ("mlflow",)
