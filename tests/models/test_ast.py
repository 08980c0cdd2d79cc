"""Starting from an Audio Spectrogram Transformer: a tiny one, saved as the hub's ones are."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from mgc_ray import RequestError
from mgc_ray.config import DatasetConfig
from mgc_ray.data.chunks import Chunks
from mgc_ray.data.features import FeatureSet, ast, audio_features
from mgc_ray.data.features.log_mel import LogMel
from mgc_ray.models import _ast, transfer
from mgc_ray.models._classifier import Classifier
from mgc_ray.results import TrainedOn
from mgc_ray.settings import Params
from mgc_ray.training.checkpoint import load_checkpoint, save_checkpoint
from mgc_ray.training.initial import check_features, initial_params, trained_on
from mgc_ray.training.loop import train
from tests.conftest import make_chunks

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
BANDS, FRAMES = 128, 64  # columns of patches: (64 - 16) // 10 + 1 = 5; rows: 12
MEAN, STD = -6.0, 3.0  # other than the extractor's defaults
TRAINING: Params = {"batch_size": 8, "max_epochs": 1}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason='needs pip install "mgc-ray[hf]"')


@pytest.fixture(scope="module")
def saved(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with its extractor; tokens and positions are set, as new ones are all zero."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    config = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=FRAMES,
        initializer_range=0.3,
        num_labels=7,
    )
    model = transformers.ASTForAudioClassification(config)
    embeddings = model.audio_spectrogram_transformer.embeddings
    for parameter in (
        embeddings.cls_token,
        embeddings.distillation_token,
        embeddings.position_embeddings,
    ):
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    extractor = transformers.ASTFeatureExtractor(max_length=FRAMES, mean=MEAN, std=STD)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "ast"))


def _features(bands: int = BANDS) -> FeatureSet:
    feature = ast.Feature(bands=bands, frames=FRAMES, mean=MEAN, std=STD)
    return FeatureSet({"ast": feature}, feature.chunk_seconds, keep_end=True)


@pytest.fixture
def chunks() -> Chunks:
    """Separable chunks, as if they were this model's own features."""
    made = make_chunks(bands=BANDS, frames=FRAMES)  # around -30
    features = {"ast": made.features["array"] + 30}
    return replace(made, info=replace(made.info, features=_features()), features=features)


def _classifier(params: Params, bands: int = BANDS) -> Classifier:
    config = transfer.Config(**params)
    classifier = Classifier("transfer", config, _features(bands), 3)
    transfer.initialise(classifier, config)
    return classifier.eval()


def _change(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- the same network ---


def test_embeddings_are_those_of_transformers_on_its_extractors_output(
    saved: Path, tmp_path: Path, transformers: Any
) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal(FRAMES * 160).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    extractor = transformers.ASTFeatureExtractor.from_pretrained(saved)
    expected_input = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_values"]
    network = transformers.ASTModel.from_pretrained(saved).eval()
    features = audio_features(DatasetConfig(features=(f"ast:{saved}",)))
    assert features == _features()
    classifier = _classifier(initial_params(saved))
    x = torch.from_numpy(features.compute(tmp_path / "a.wav").columns["ast"])
    with torch.no_grad():
        expected = network(expected_input).pooler_output
        found = classifier.network.embed(classifier.standardise({"ast": x}))
    assert torch.allclose(x.transpose(1, 2), expected_input, atol=1e-5)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-5)


def test_weights_of_pytorchs_own_file_are_the_same(folder: Path, saved: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    expected = _ast.pretrained_weights(saved)
    found = _ast.pretrained_weights(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_values_are_given_to_the_model_as_its_extractor_made_them(
    folder: Path, chunks: Chunks
) -> None:
    """Not standardised again; where the model takes raw values, these are raw."""
    _change(folder, "preprocessor_config.json", do_normalize=False)
    assert not ast.make(str(folder), 0).do_normalize
    params = initial_params(folder) | TRAINING
    classifier = next(train("transfer", params, chunks, autocast=False)).classifier
    x = torch.randn(1, BANDS, FRAMES)
    assert torch.equal(classifier.standardise({"ast": x}), x)


def test_the_head_is_new(saved: Path) -> None:
    torch.manual_seed(1)
    one = _classifier(initial_params(saved)).network
    two = _classifier(initial_params(saved)).network
    assert not torch.equal(one.head[-1].weight, two.head[-1].weight)
    assert one.head[-1].out_features == 3
    assert torch.equal(one.backbone.layers[1].mlp.fc1.weight, two.backbone.layers[1].mlp.fc1.weight)


# --- any number of frames ---


@pytest.mark.parametrize("frames", [1, 15, 40, 64, 70, 200])
def test_any_number_of_frames_gives_logits_that_depend_on_it(saved: Path, frames: int) -> None:
    classifier = _classifier(initial_params(saved))
    logits = classifier({"ast": torch.randn(2, BANDS, frames)})
    assert logits.shape == (2, 3)
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (5, [0, 1, 2, 3, 4]),
        (3, [1, 2, 3]),  # the middle
        (2, [1, 2]),
        (10, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4]),  # edges repeated beyond
    ],
)
def test_positions_of_other_lengths(saved: Path, columns: int, expected: list[float]) -> None:
    network = _classifier(initial_params(saved)).network.backbone
    grid = 100.0 * torch.arange(12)[:, None] + torch.arange(5)
    positions = network.embeddings.position_embeddings
    positions.data[0, 2:] = grid.reshape(-1, 1)
    tokens = positions[0, :2].clone()
    found = network._positions(12 * columns)[0]
    assert torch.equal(found[:2], tokens)
    for row in range(12):
        part = found[2 + row * columns : 2 + (row + 1) * columns, 0]
        assert torch.allclose(part, 100.0 * row + torch.tensor(expected))


def test_other_bands_are_refused(saved: Path) -> None:
    with pytest.raises(RequestError, match="must have 128 bands, but these have 40: make the"):
        _classifier(initial_params(saved), bands=40)


# --- training ---


def test_a_trained_member_needs_its_first_folder_no_more(
    folder: Path, tmp_path: Path, chunks: Chunks
) -> None:
    params = initial_params(folder) | TRAINING
    epoch = next(train("transfer", params, chunks, autocast=False))
    save_checkpoint(tmp_path / "member", epoch, "transfer", params, chunks.info)
    shutil.rmtree(folder)
    loaded = load_checkpoint(tmp_path / "member")
    x = {"ast": torch.from_numpy(chunks.features["ast"][:5])}
    with torch.no_grad():
        assert torch.equal(loaded.classifier(x), epoch.classifier.eval()(x))
    assert loaded.features == _features()
    assert loaded.classifier.mean.tolist() == [0] * BANDS
    assert loaded.classifier.deviation.tolist() == [1] * BANDS


def test_weights_pass_through_a_second_transfer(
    saved: Path, tmp_path: Path, chunks: Chunks
) -> None:
    params = initial_params(saved) | TRAINING
    epoch = next(train("transfer", params, chunks, autocast=False))
    save_checkpoint(tmp_path, epoch, "transfer", params, chunks.info)
    again = initial_params(tmp_path)
    assert again["backbone_config"] == params["backbone_config"]
    first, second = epoch.classifier, _classifier(again)
    own = {"network.backbone.head.1.weight", "network.backbone.head.1.bias"}
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]) == (name not in own), name
    earlier = trained_on(again)
    assert [one.task for one in earlier] == ["not stated", "genres"]
    assert earlier[0].source == str(saved)


def test_it_learns(saved: Path, chunks: Chunks) -> None:
    settings = {"batch_size": 8, "max_epochs": 20, "patience": 20, "lr": 3e-3, "mixup": 0.0}
    params = initial_params(saved) | settings
    losses = [e.metrics["train_loss"] for e in train("transfer", params, chunks, autocast=False)]
    assert losses[-1] < 0.8 * losses[0]  # 0.6 when this was written


def test_each_parameter_has_one_rate_which_falls_towards_the_input(saved: Path) -> None:
    params = initial_params(saved) | {"layer_decay": 0.5}
    classifier = _classifier(params)
    network = classifier.network.backbone
    shares = transfer.lr_shares(classifier, transfer.Config(**params))
    layers = [network.embeddings, *network.layers, network.layernorm, network.head]
    assert [share for _, share in shares] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    for (part, _), layer in zip(shares, layers, strict=True):
        assert [id(p) for p in part] == [id(p) for p in layer.parameters()]
    assert sum(len(part) for part, _ in shares) == len(list(classifier.parameters()))


def test_frozen_layers_stay_as_they_were_and_the_others_learn(saved: Path, chunks: Chunks) -> None:
    before = _ast.pretrained_weights(saved)
    params = initial_params(saved) | {"batch_size": 8, "max_epochs": 2, "patience": 9}
    settings = params | {"freeze_epochs": 1, "frozen_layers": 2}
    for epoch in train("transfer", settings, chunks, autocast=False):
        now = epoch.classifier.network.backbone.state_dict()
        changed = {n.split(".mlp")[0] for n in before if not torch.equal(now[n], before[n])}
        if epoch.number == 1:
            assert not changed
    assert "layers.1" in changed
    assert not any(name.startswith(("embeddings.", "layers.0")) for name in changed)


# --- what is asked for ---


def test_what_a_model_was_trained_on_stands_in_its_card(folder: Path) -> None:
    (entry,) = trained_on(initial_params(folder))
    assert entry == TrainedOn(str(folder), "not stated", "not stated")
    card = "---\ndatasets:\n- agkphysics/AudioSet\n- marsyas/gtzan\n{}---\n# AST\n"
    (folder / "README.md").write_text(card.format("base_model: MIT/ast\n"))
    (entry,) = trained_on(initial_params(folder))
    assert entry.task == "trained on agkphysics/AudioSet, marsyas/gtzan, on top of MIT/ast"
    for text in ("# AST\n", "---\n: [\n---\n"):
        (folder / "README.md").write_text(text)
        assert trained_on(initial_params(folder))[0].task == "not stated"


def test_a_name_in_the_hub_is_read_from_it_or_its_cache(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "models--tiny--ast"
    shutil.copytree(saved, entry / "snapshots" / "1234")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("1234")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    params = initial_params("tiny/ast")
    assert params["init_from"] == "tiny/ast"
    assert params["backbone_config"] == initial_params(saved)["backbone_config"]
    expected = _classifier(initial_params(saved)).network.backbone.layers.state_dict()
    found = _classifier(params).network.backbone.layers.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert trained_on(params)[0] == TrainedOn("tiny/ast", "not stated", "not stated")
    (entry / "snapshots" / "1234" / "README.md").write_text("---\ndatasets: music\n---\n")
    assert trained_on(initial_params("tiny/ast"))[0].task == "trained on music"


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _damage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")


def _drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["audio_spectrogram_transformer.layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _widen(folder: Path) -> None:
    _change(folder, "config.json", hidden_size=32)


def _other_type(folder: Path) -> None:
    _change(folder, "config.json", model_type="vit")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_weights, "is no audio-spectrogram-transformer that can be read .*: give a folder"),
        (_damage_weights, "is no audio-spectrogram-transformer that can be read .*: give a folder"),
        (_drop_a_weight, "must be those of the whole network, but layernorm.weight is missing"),
        (_widen, "is no audio-spectrogram-transformer that can be read .*: give a folder"),
        (_other_type, "must be an audio-spectrogram-transformer, but it is a vit"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(RequestError, match=message):
        initial_params(folder)


def test_other_features_than_its_own_are_refused(saved: Path) -> None:
    params = initial_params(saved)
    log_mel = FeatureSet({"log_mel": LogMel()})
    both = replace(log_mel, columns=_features().columns | log_mel.columns)
    check_features(params, _features())
    check_features({"backbone": "gru"}, log_mel)
    check_features({}, log_mel)
    for features, names in ((log_mel, "log_mel"), (both, "ast, log_mel")):
        message = f"this dataset has {names}: make one with --features ast:{saved}"
        with pytest.raises(RequestError, match=message):
            check_features(params, features)


def test_loading_is_quiet(
    saved: Path, transformers: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    transformers.utils.logging.add_handler(handler)
    verbosity = transformers.utils.logging.get_verbosity()
    try:
        _classifier(initial_params(saved))
    finally:
        transformers.utils.logging.remove_handler(handler)
    assert (logged, capfd.readouterr()) == ([], ("", ""))
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert transformers.utils.logging.is_progress_bar_enabled()


# --- without transformers ---


def test_without_transformers_the_request_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"model_type": "audio-spectrogram-transformer"}')
    for source in (tmp_path, "MIT/ast"):
        message = rf'{source}.* needs the library transformers.*: pip install "mgc-ray\[hf\]"'
        with pytest.raises(RequestError, match=message):
            initial_params(source)
    with pytest.raises(RequestError, match="Transformer needs the library transformers"):
        _ast.Model(_ast.Config(architecture={}), BANDS, 3)


def test_other_backbones_never_load_transformers() -> None:
    program = (
        "import sys\n"
        "from mgc_ray.models import transfer\n"
        "from mgc_ray.models._classifier import Classifier\n"
        "from tests.made_chunks import arrays\n"
        "config = transfer.Config()\n"
        "transfer.initialise(Classifier('transfer', config, arrays(), 3), config)\n"
        "print('transformers' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
