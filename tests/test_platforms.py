"""Where there is no Unix (Windows), and on Apple's GPUs: what works there does, the rest says so.

Of Windows this machine can only leave out what that does not have: see without_unix.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mgc_ray import RequestError
from mgc_ray.data.device import best_device
from mgc_ray.models._solving import ClassSums
from mgc_ray.terminal.main import commands

ROOT = Path(__file__).parents[1]
START = "import tests.without_unix\n"
IMPORTED = """
import importlib, json, sys
from pathlib import Path
import mgc_ray
package, failed = Path(mgc_ray.__path__[0]), {}
for path in sorted(package.rglob("*.py")):
    parts = path.relative_to(package.parent).with_suffix("").parts
    try:
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
    except ImportError as error:
        failed[path.relative_to(package).as_posix()] = str(error)
    except SystemExit:  # of __main__
        pass
print(json.dumps(failed))
"""
PARSED = """
import contextlib, importlib, io, json
from mgc_ray.terminal.command import status_of
from mgc_ray.terminal.stopping import obey_signals
from mgc_ray.terminal.main import commands
obey_signals("mgc_ray")
statuses = {}
for name in commands():
    main = importlib.import_module(f"mgc_ray.{name}").main
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(["--help"])
    assert "Show this page" in printed.getvalue(), name
    statuses[name] = status_of(name, main, ["--no-such-option"])
print(json.dumps(statuses))
"""
PREDICTED = """
import sys
from mgc_ray.predict import main
from mgc_ray.terminal.command import status_of
sys.exit(status_of("mgc_ray.predict", main, ["--json", *sys.argv[1:]]))
"""
TRAINED = """
import json
from tests.conftest import make_chunks
from mgc_ray.training.loop import train
chunks = make_chunks()
params = {"max_epochs": 2, "batch_size": 8, "hidden": 8, "channels": 4, "blocks": 2}
print(json.dumps([epoch.metrics for epoch in train("gru", params, chunks)][-1]))
"""
REFUSED = """
import sys
from mgc_ray.search import main
from mgc_ray.terminal.command import status_of
status = status_of("mgc_ray.search", main, ["--smoke", "--family", "gru"])
assert "ray" not in sys.modules
sys.exit(status)
"""


def run(script: str, *args: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, without what only Unix has."""
    done = subprocess.run(
        [sys.executable, "-c", START + script, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    assert done.returncode == status, done.stderr
    return done


def test_without_unix_all_is_imported_that_does_not_need_ray(tmp_path: Path) -> None:
    failed = json.loads(run(IMPORTED, cwd=tmp_path).stdout.splitlines()[-1])
    # Ray for Linux needs two of the modules, its copy of psutil among others
    needs_ray = ("tuning/", "serving/app.py", "serving/run.py", "pipeline/search.py")
    assert [name for name in failed if not name.startswith(needs_ray)] == []
    needs_none = {"address", "mlflow", "pictures", "tracking"}
    assert not failed.keys() & {f"tuning/{name}.py" for name in needs_none}


def test_without_unix_every_command_has_its_help_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    statuses = json.loads(run(PARSED, cwd=tmp_path).stdout)
    assert statuses == dict.fromkeys(commands(), 2)


def test_without_unix_songs_and_arrays_are_predicted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", noise.uniform(-0.5, 0.5, 22_050 * 4), 22_050)
    np.save(tmp_path / "a.npy", noise.integers(0, 255, (128, 600), np.uint8))
    (tmp_path / "b.wav").write_text("no sound")
    names = ("a.wav", "a.npy", "b.wav")
    predictions = json.loads(run(PREDICTED, *names, cwd=tmp_path, status=1).stdout)
    assert [one["file"] for one in predictions] == list(names)
    for one in predictions[:2]:
        assert sum(one["genres"].values()) == pytest.approx(1, abs=1e-3)
    assert "not audio, or corrupt" in predictions[2]["error"]


def test_without_unix_a_model_is_trained(tmp_path: Path) -> None:
    metrics = json.loads(run(TRAINED, cwd=tmp_path).stdout)
    assert metrics["memory_mib"] == 0
    assert 0 <= metrics["val_track_accuracy"] <= 1


def test_without_unix_a_search_is_refused_with_what_to_do(tmp_path: Path) -> None:
    refused = run(REFUSED, cwd=tmp_path, status=2)
    assert "use the Windows Subsystem for Linux (wsl --install)" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # the same tests as before, once more
@pytest.mark.timeout(1800)
def test_without_unix_the_quick_tests_pass(tmp_path: Path) -> None:
    quick = ("training", "models", "evaluation", "ensembling", "data/features", "terminal")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x"),
            *("-p", "ray"),  # some import it, and for Linux it needs the modules
            *("-p", "tests.without_unix"),
            *("-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={tmp_path / 'base'}"),
            *(f"tests/{one}" for one in quick),
            "--ignore=tests/terminal/test_stopping.py",  # of signals that only Unix has
            *("tests/data/test_chunks.py", "tests/data/test_tracks.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1700,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-5000:]


# ---- devices ----


def test_an_apple_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MGC_RAY_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert best_device() == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")


def test_the_environment_may_give_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("MGC_RAY_DEVICE", "cpu")
    assert best_device() == torch.device("cpu")
    for wrong in ("gpu", "cuda:99", "mps"):
        monkeypatch.setenv("MGC_RAY_DEVICE", wrong)
        with pytest.raises(RequestError, match=f"MGC_RAY_DEVICE must be a device .* '{wrong}'"):
            best_device()


def test_sums_for_an_apple_gpu_are_on_the_cpu_as_it_has_no_float64() -> None:
    sums = ClassSums(3, 2, torch.device("mps"))
    sums.add(torch.eye(3), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    weight, bias = sums.solve(0.5)
    assert (weight.device.type, weight.dtype, bias.shape) == ("cpu", torch.float64, (2,))
