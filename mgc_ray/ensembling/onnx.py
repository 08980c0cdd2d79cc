"""An ensemble as one ONNX file, for programs without PyTorch.

Input `spectrograms` float32 [chunks, bands, frames], as the ensemble's features make them from a
song; outputs `chunks` [chunks, genres], the probabilities of each, and `track` [genres], those of
the whole song, calibrated. What makes the input is written into the file's metadata, as are the
genres in the order of the outputs.
"""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mgc_ray import RequestError, __version__
from mgc_ray.data.files import written_whole
from mgc_ray.data.spectrogram import features_to_json
from mgc_ray.ensembling.artefact import Ensemble
from mgc_ray.ensembling.calibration import temper

_INSTALL = 'install it by pip install "mgc-ray[onnx]"'


class _Whole(nn.Module):
    """All members behind one another, as `Ensemble.predict` uses them."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.members = nn.ModuleList([m.classifier.cpu().eval() for m in ensemble.members])
        self.weights, self.temperature = ensemble.weights, ensemble.temperature

    def forward(self, spectrograms: Tensor) -> tuple[Tensor, Tensor]:
        chunks = torch.stack(
            [
                weight * member.probs(spectrograms)  # type: ignore[operator]
                for weight, member in zip(self.weights, self.members, strict=True)
            ]
        ).sum(0)
        logarithm = chunks.mean(0).clamp(min=1e-12).log() / self.temperature
        return chunks.float(), logarithm.softmax(0).float()


def check_onnx(path: Path) -> None:
    """RequestError where a library is missing, or no file can be written."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  what PyTorch exports by
    except ImportError as error:
        raise RequestError(f"an ONNX file needs the package {error.name}: {_INSTALL}") from None
    if path.suffix.lower() != ".onnx":  # and no file of the ensemble's own is written over
        raise RequestError(f"--onnx must end in .onnx, but it is {path}: name such a file")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise RequestError(f"--onnx {path} must be a file in a folder that exists: name another")


def export_onnx(ensemble: Ensemble, path: Path) -> None:
    """Write the ensemble into one file. Raises RequestError where that cannot be."""
    check_onnx(path)
    import onnx

    features = ensemble.features
    example = torch.zeros(2, features.bands, features.frames)
    with _quiet():
        program = torch.onnx.export(
            _Whole(ensemble),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("chunks", min=1)},),
            input_names=["spectrograms"],
            output_names=["chunks", "track"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    described = {
        "mgc_ray": __version__,
        "genres": json.dumps(ensemble.genres),
        "features": json.dumps(features_to_json(features)),
        "protocol": str(ensemble.content.get("protocol", "")),
        "trained_on": json.dumps(ensemble.content.get("trained_on", [])),
    }
    for key, value in described.items():
        model.metadata_props.add(key=key, value=value)
    with written_whole(path) as temporary:
        onnx.save_model(model, str(temporary))


def largest_difference(
    ensemble: Ensemble, path: Path, tracks: Sequence[np.ndarray]
) -> tuple[float, int]:
    """How far onnxruntime's probabilities of tracks and chunks are from PyTorch's, at most.

    `tracks`: spectrograms [chunks, bands, frames] of each. Also: of how many tracks the most
    probable genre is another.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    largest, other = 0.0, 0
    for spectrograms in tracks:
        expected = ensemble.chunk_probs(spectrograms)
        whole = temper(expected.mean(0), ensemble.temperature)
        chunks, track = session.run(None, {"spectrograms": spectrograms.astype(np.float32)})
        differences = [np.abs(chunks - expected).max(), np.abs(track - whole).max()]
        largest = max(largest, *map(float, differences))
        other += int(track.argmax() != whole.argmax())
    return largest, other


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Without the exporter's pages of hints, which are for who writes exporters."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
