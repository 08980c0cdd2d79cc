"""Models of Hugging Face, told apart from checkpoints of this program."""

import json
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import (
    _check_download,
    is_hugging_face,
    read_encoder,
    read_pretrained,
)


def test_a_model_is_recognised_by_its_folder_or_its_name(tmp_path: Path) -> None:
    assert is_hugging_face("MIT/ast-finetuned-audioset-10-10-0.4593")
    assert not is_hugging_face("gru-001")
    assert not is_hugging_face("results/gru-001/ensemble")
    assert not is_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text('{"family": "gru"}')
    assert not is_hugging_face(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert is_hugging_face(tmp_path)


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RequestError, match=r"is no checkpoint or model: config\.json: Expecting"):
        is_hugging_face(tmp_path)


class Hub(BaseHTTPRequestHandler):
    """Answers what a hub says about the files of a model: of one that is small, or is not."""

    def do_GET(self) -> None:
        assert self.path.startswith("/api/models/owner/")
        size = 10**10 if "large" in self.path else 10**6
        files = [
            {"rfilename": "model.safetensors", "size": size},
            {"rfilename": "a", "size": 10**12},
        ]
        body = json.dumps({"id": "owner/x", "siblings": files}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs mgc-ray[hf]")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield
        server.shutdown()


def test_weights_in_the_hub_are_as_large_as_the_network_or_refused(hub: None) -> None:
    _check_download("owner/small", 100)
    _check_download("owner/large", 10**9)
    with pytest.raises(
        RequestError, match=r"model\.safetensors has 10\.0 GB, but the network has 9"
    ):
        _check_download("owner/large", 99)
    with pytest.raises(RequestError, match="weights, too many to be used here"):
        _check_download("owner/small", 10**11)


SOUND = {
    "model_type": "audio-spectrogram-transformer",
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "hidden_size": 4,
    "intermediate_size": 4,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "bomb",
    [
        {"hidden_size": 30_000},  # 3.6 billion weights in a layer
        {"intermediate_size": 9_000_000},
        {"hidden_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"max_length": 10**9},
        {"hidden_size": -1},
        {"hidden_size": 1e300},
        {"hidden_size": "many"},
        {"num_hidden_layers": None},
    ],
)
@pytest.mark.parametrize("as_feature", [False, True])
def test_settings_that_ask_for_all_memory_are_refused_before_it_is_taken(
    tmp_path: Path, bomb: dict[str, object], as_feature: bool
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs mgc-ray[hf]")
    transformers.ASTFeatureExtractor().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SOUND | bomb))
    safetensors.numpy.save_file({"a": np.zeros(3, "f4")}, tmp_path / "model.safetensors")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RequestError):
        if as_feature:
            read_encoder(str(tmp_path))
        else:
            read_pretrained("ASTModel", tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
