"""The settings of a tiny Audio Spectrogram Transformer, without weights."""

from pathlib import Path
from typing import Any

import pytest


def import_transformers() -> Any:
    return pytest.importorskip("transformers", reason='needs pip install "mgc-ray[hf]"')


def write_extractor(folder: Path, **settings: Any) -> Path:
    """Write config.json and preprocessor_config.json, the files that features depend on."""
    transformers = import_transformers()
    settings = {"max_length": 64} | settings
    transformers.ASTConfig(max_length=settings["max_length"]).save_pretrained(folder)
    transformers.ASTFeatureExtractor(**settings).save_pretrained(folder)
    return folder
