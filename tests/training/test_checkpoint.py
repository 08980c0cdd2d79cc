"""A checkpoint comes back as it was saved, or is refused; it never runs code."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from mgc_ray import RequestError
from mgc_ray.data.chunks import Chunks
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.loop import train

PARAMS = {"blocks": 2, "channels": 4, "hidden": 8, "max_epochs": 2}


@pytest.fixture
def saved(tmp_path: Path, chunks: Chunks) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, next(train("gru", PARAMS, chunks)), "gru", PARAMS, chunks.info)
    return folder


def test_it_predicts_after_loading_what_it_predicted_before(tmp_path: Path, chunks: Chunks) -> None:
    epoch = next(train("gru", PARAMS, chunks))
    save_checkpoint(tmp_path / "c", epoch, "gru", PARAMS, chunks.info)
    loaded = load_checkpoint(tmp_path / "c")
    x = torch.from_numpy(chunks.spectrograms[:5])
    with torch.no_grad():
        assert loaded.classifier(x).equal(epoch.classifier.eval()(x))
    assert loaded.metrics == epoch.metrics
    assert (loaded.family, loaded.epoch, loaded.genres) == ("gru", 1, chunks.info.genres)
    assert loaded.features == chunks.info.features
    assert loaded.params["hidden"] == 8
    assert loaded.params["lr"] == 0.001  # defaults are written too
    assert loaded.dataset["protocol"] == "given"


def test_a_later_epoch_takes_the_place_of_the_earlier(saved: Path, chunks: Chunks) -> None:
    second = list(train("gru", PARAMS, chunks))[1]
    save_checkpoint(saved, second, "gru", PARAMS, chunks.info)
    assert load_checkpoint(saved).epoch == 2
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_a_write_that_fails_leaves_the_earlier_epoch(
    saved: Path, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    second = list(train("gru", PARAMS, chunks))[1]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(saved, second, "gru", PARAMS, chunks.info)
    assert load_checkpoint(saved).epoch == 1
    assert len(list(saved.iterdir())) == 2


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(RequestError, match="name a folder with config.json and model.safetensors"):
        load_checkpoint(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    content["params"]["hidden"] = 16
    (saved / "config.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)


def test_a_pickle_in_place_of_the_weights_is_not_run(saved: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    (saved / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)
    assert not (tmp_path / "ran").exists()
