"""Tiny encoders of transformers with random weights, as folders."""

from pathlib import Path
from typing import Any

import torch

from tests.data.features.made_ast import import_transformers

_TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_stride": (10, 8),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def write_wav2vec2(folder: Path, seed: int = 0) -> Path:
    transformers = import_transformers()
    torch.manual_seed(seed)
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**_TINY)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def write_hubert(folder: Path) -> Path:
    transformers = import_transformers()
    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig(**_TINY)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def write_whisper(folder: Path) -> Path:
    """An encoder with a decoder."""
    transformers = import_transformers()
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder
