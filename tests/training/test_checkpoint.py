"""A checkpoint comes back as it was saved, or is refused; it never runs code."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgc_ray import RequestError, models
from mgc_ray.data.chunks import Chunks
from mgc_ray.results import TrainedOn
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import (
    halve,
    load_checkpoint,
    save_checkpoint,
)
from mgc_ray.training.initial import initial_params
from mgc_ray.training.loop import train

PARAMS: Params = {"blocks": 2, "channels": 4, "hidden": 8, "max_epochs": 2}
NO_BOUNDS = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Config:
    hidden: int = 8

class Model(nn.Module):
    def __init__(self, config, bands, genres):
        super().__init__()
        self.hidden = nn.Linear(bands, config.hidden)
        self.head = nn.Linear(config.hidden, genres)

    def embed(self, x):
        return self.hidden(x.mean(2))

    def forward(self, x):
        return self.head(self.embed(x))
"""


@pytest.fixture
def saved(tmp_path: Path, chunks: Chunks) -> Path:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, next(train("gru", PARAMS, chunks)), "gru", PARAMS, chunks.info)
    return folder


def _edit(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_it_predicts_after_loading_what_it_predicted_before(tmp_path: Path, chunks: Chunks) -> None:
    epoch = next(train("gru", PARAMS, chunks))
    save_checkpoint(tmp_path / "c", epoch, "gru", PARAMS, chunks.info)
    loaded = load_checkpoint(tmp_path / "c")
    x = {"array": torch.from_numpy(chunks.features["array"][:5])}
    with torch.no_grad():
        assert loaded.classifier(x).equal(epoch.classifier.eval()(x))
    assert loaded.metrics == epoch.metrics
    assert (loaded.config.family, loaded.epoch, loaded.genres) == ("gru", 1, chunks.info.genres)
    assert loaded.features == chunks.info.features
    assert loaded.config.params["hidden"] == 8
    assert loaded.config.params["lr"] == 0.001  # defaults are written too
    assert loaded.config.dataset.protocol == "given"
    assert loaded.config.trained_on == (TrainedOn("made by a test", "given", "genres"),)


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


def test_half_of_the_size_keeps_statistics_exact(saved: Path) -> None:
    whole = load_checkpoint(saved).classifier.state_dict()
    size = (saved / "model.safetensors").stat().st_size
    halve(saved)
    assert (saved / "model.safetensors").stat().st_size < 0.75 * size  # headers stay
    half = load_checkpoint(saved)
    assert half.epoch == 1
    for name, value in half.classifier.state_dict().items():
        last = name.rsplit(".", 1)[-1]
        if last in ("mean", "deviation", "running_mean", "running_var"):
            assert value.equal(whole[name]), name
        assert torch.allclose(value.float(), whole[name].float(), rtol=1e-3, atol=1e-6), name


# --- damage ---


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_the_files_is_refused(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    with pytest.raises(RequestError, match="give a folder with config.json and model.safetensors"):
        load_checkpoint(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    _edit(saved, lambda content: content["params"].update(hidden=16))
    with pytest.raises(
        RequestError, match="is missing or not of the size that the settings give.*give a folder"
    ):
        load_checkpoint(saved)


@pytest.mark.parametrize("change", ["one too few", "one too many"])
def test_weights_of_another_network_are_refused(saved: Path, change: str) -> None:
    weights = load_file(saved / "model.safetensors")
    if change == "one too few":
        weights.pop("network.head.1.bias")
    else:
        weights["network.head.2.bias"] = torch.zeros(3)
    save_file(weights, saved / "model.safetensors", metadata={"epoch": "1", "metrics": "{}"})
    with pytest.raises(RequestError, match=r"no checkpoint that can be read .*network\.head"):
        load_checkpoint(saved)


@pytest.mark.parametrize("header", [{}, {"epoch": "1"}, {"epoch": "one", "metrics": "{}"}])
def test_weights_without_their_epoch_are_refused(saved: Path, header: dict[str, str]) -> None:
    weights = load_file(saved / "model.safetensors")
    save_file(weights, saved / "model.safetensors", metadata=header)
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("genres"), "is damaged, or .*another version.*genres is needed.*: give a"),
        (lambda c: c.update(params=[]), "is damaged, or .*another version"),
        (lambda c: c["dataset"].pop("leaky"), "is damaged, or .*another version"),
        (lambda c: c.update(genres=[]), "knows no genres, as it was pre-trained without"),
        (lambda c: c.update(features={}), "the description of features is damaged"),
        (lambda c: c.update(family="grru"), r"is 'grru' \(nearest: gru\)"),
        (lambda c: c["params"].update(hiden=3), r"no setting 'hiden' \(nearest: hidden\)"),
        (lambda c: c["params"].update(dropout="much"), "dropout must be a number from 0 to below"),
        (lambda c: c["params"].update(blocks=10**9), "blocks must be a whole number from 1 to 16,"),
        (
            lambda c: c["features"]["columns"]["array"].update(bands=10**12),
            "bands must be a whole number from 1 to 1",
        ),
    ],
)
def test_a_damaged_description_is_refused_with_its_folder_and_the_reason(
    saved: Path, change: Callable[[Any], None], message: str
) -> None:
    _edit(saved, change)
    with pytest.raises(RequestError, match=f"^{saved}.*{message}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0", '{"a": ' * 100_000])
def test_a_description_that_is_no_json_object_is_refused(saved: Path, content: str) -> None:
    (saved / "config.json").write_text(content)
    with pytest.raises(RequestError, match=f"^{saved}.*: give a folder|; give a folder"):
        load_checkpoint(saved)


def test_a_pickle_in_place_of_the_weights_is_not_run(saved: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "ran",))

    (saved / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RequestError, match="no checkpoint that can be read"):
        load_checkpoint(saved)
    assert not (tmp_path / "ran").exists()


# --- memory ---


def _peak_mib() -> float:
    resource = pytest.importorskip("resource", reason="only Unix says it")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def test_a_network_that_does_not_fit_the_weights_is_refused_before_it_takes_memory(
    saved: Path,
) -> None:
    before = _peak_mib()
    # within its bounds, yet two matrices of 3 x 16384 x 16384 values: 6 GiB
    _edit(saved, lambda content: content["params"].update(hidden=16_384))
    with pytest.raises(RequestError, match="not of the size that the settings give"):
        load_checkpoint(saved)
    assert _peak_mib() - before < 500


def test_a_setting_without_bounds_is_refused_before_it_takes_memory(
    tmp_path: Path, chunks: Chunks
) -> None:
    (tmp_path / "unbounded.py").write_text(NO_BOUNDS)
    family = models.register_family(tmp_path / "unbounded.py")
    try:
        epoch = next(train(family, {"hidden": 4}, chunks))
        save_checkpoint(tmp_path / "c", epoch, family, {"hidden": 4}, chunks.info)
        assert load_checkpoint(tmp_path / "c").config.params["hidden"] == 4
        _edit(tmp_path / "c", lambda content: content["params"].update(hidden=10**12))
        before = _peak_mib()
        with pytest.raises(RequestError, match=r"network\.hidden\.weight is .*not of the size"):
            load_checkpoint(tmp_path / "c")
        assert _peak_mib() - before < 500
    finally:
        models._own.pop(family)
        models._own_module.cache_clear()
        models._settings_of.cache_clear()


def test_settings_of_a_backbone_are_checked_as_well(
    saved: Path, tmp_path: Path, chunks: Chunks
) -> None:
    params = initial_params(saved) | {"max_epochs": 1}
    folder = tmp_path / "transfer"
    epoch = next(train("transfer", params, chunks))
    save_checkpoint(folder, epoch, "transfer", params, chunks.info)
    assert load_checkpoint(folder).config.params["backbone_config"]["hidden"] == 8
    for hidden, message in ((16, "not of the size"), (10**6, "hidden must be a whole number from")):
        _edit(folder, lambda c, h=hidden: c["params"]["backbone_config"].update(hidden=h))
        with pytest.raises(RequestError, match=f"^{folder}.*{message}"):
            load_checkpoint(folder)
