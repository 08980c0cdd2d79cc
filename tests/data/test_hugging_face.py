"""Models of Hugging Face, told apart from checkpoints of this program."""

from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.data.hugging_face import is_hugging_face


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
