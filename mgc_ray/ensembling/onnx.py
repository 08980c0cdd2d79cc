"""An ensemble as one ONNX file, for programs without PyTorch.

Inputs: one per feature that the members read, by its name, float32 [chunks, bands, frames]. Where
members read chunks of several lengths, the inputs of the second are named NAME_2 and so on.
Outputs: `chunks` [chunks, genres], the probabilities of each chunk (of the first inputs, which have
the shortest chunks), and `track` [genres], those of the whole song, both calibrated. The file's
metadata say all that is needed besides, see METADATA; docs/onnx.md has a program that reads them.
"""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mgc_ray import RequestError, __version__
from mgc_ray.data.files import atomic_write, check_output_file
from mgc_ray.ensembling.saved import Ensemble, SongFeatures
from mgc_ray.models._classifier import Shared
from mgc_ray.settings import Params, as_json

METADATA = {  # what each entry is; JSON where it is not said otherwise
    "mgc_ray": "version of the program, as text",
    "genres": "in the order of the outputs",
    "preprocessing": "how the inputs are computed from a file, and what the outputs are",
    "preprocessing_in_words": "the same for people, as text",
    "features": "the program's own settings of the inputs",
    "protocol": "how the training data were split, as text",
    "trained_on": "what the weights were trained on",
}
_INSTALL = 'install it by pip install "mgc-ray[onnx]"'
_OUTPUTS = {
    "chunks": "calibrated probabilities of each chunk",
    "track": "calibrated probabilities of the song: the model averages those of all chunks of the "
    "input, for each member, before it calibrates and mixes them, so give it all chunks of a song "
    "at once, as float32, whatever dtype the input has",
}


class _WholeEnsemble(nn.Module):
    """All members together, as `Ensemble.predict_song` uses them."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        checkpoints = ensemble.checkpoints
        classifiers = [checkpoint.classifier.cpu().eval() for checkpoint in checkpoints]
        for classifier in classifiers:
            classifier.standardisation()  # before tracing, which has no values to compare
        self.classifiers = nn.ModuleList(classifiers)
        self.members, self.temperature = ensemble.info.members, ensemble.info.temperature
        self.names = [list(features.columns) for features in ensemble.inputs]
        self.input_of = ensemble.input_of_member

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        remaining = iter(features)
        batches = [{name: next(remaining) for name in names} for names in self.names]
        shared = [Shared() for _ in batches]
        count = next(iter(batches[0].values())).shape[0]
        chunks, song = [], []
        for member, classifier, i in zip(
            self.members, self.classifiers, self.input_of, strict=True
        ):
            probs = classifier.probs(batches[i], shared[i])  # type: ignore[operator]
            of_song = member.weight * _scaled(probs.mean(0), member.temperature)
            song.append(of_song)
            of_chunks = member.weight * _scaled(probs, member.temperature)
            chunks.append(of_song.expand(count, -1) if i else of_chunks)
        scaled = [_scaled(torch.stack(p).sum(0), self.temperature) for p in (chunks, song)]
        return scaled[0].float(), scaled[1].float()


def _names(inputs: Iterable[Iterable[str]]) -> list[str]:
    """Of all inputs' features, in order."""
    return [
        f"{name}_{number}" if number > 1 else name
        for number, names in enumerate(inputs, 1)
        for name in names
    ]


def _scaled(probs: Tensor, temperature: float) -> Tensor:
    """`metrics.apply_temperature` in PyTorch."""
    return (probs.clamp(min=1e-12).log() / temperature).softmax(-1)


def check_onnx(path: Path) -> None:
    """RequestError where a library is missing, or the file cannot be written."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  what PyTorch exports by
    except ImportError as error:
        raise RequestError(f"an ONNX file needs the package {error.name}: {_INSTALL}") from None
    check_output_file("--onnx", path, ".onnx")  # so no file of the ensemble's own is written over


def export_onnx(ensemble: Ensemble, path: Path) -> None:
    """Write the ensemble into one file. Raises RequestError as `check_onnx`."""
    check_onnx(path)
    import onnx

    names = _names(features.columns for features in ensemble.inputs)
    examples, shapes = [], []
    for number, features in enumerate(ensemble.inputs, 1):
        chunks = torch.export.Dim(f"chunks_{number}" if number > 1 else "chunks", min=1)
        for feature in features.columns.values():
            # different numbers, as equal ones would be taken for the same dimension
            examples.append(torch.zeros(1 + number, feature.bands, feature.frames))
            shapes.append({0: chunks})
    with _quiet():
        program = torch.onnx.export(
            _WholeEnsemble(ensemble),
            tuple(examples),
            dynamo=True,
            dynamic_shapes=(tuple(shapes),),
            input_names=names,
            output_names=["chunks", "track"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    info = ensemble.info
    described_inputs = [features.described() for features in ensemble.inputs]
    inputs = (one for described in described_inputs for one in described["inputs"].values())
    preprocessing = {
        "audio": described_inputs[0]["audio"],
        "inputs": dict(zip(names, inputs, strict=True)),
        "outputs": _OUTPUTS,
    }
    described = {
        "mgc_ray": __version__,
        "genres": json.dumps(info.genres),
        "preprocessing": json.dumps(preprocessing),
        "preprocessing_in_words": in_words(preprocessing),
        "features": json.dumps([features.to_json() for features in ensemble.inputs]),
        "protocol": info.protocol,
        "trained_on": json.dumps([as_json(one) for one in info.trained_on]),
    }
    assert described.keys() == METADATA.keys()
    for key, value in described.items():
        model.metadata_props.add(key=key, value=value)
    with atomic_write(path) as temporary:
        onnx.save_model(model, str(temporary))


def in_words(preprocessing: Params) -> str:
    """A description of features as text, one paragraph per step, input and output."""
    parts = [preprocessing["audio"]["in_words"]]
    for name, one in preprocessing["inputs"].items():
        if "chunks" in one and (cut := one["chunks"]["in_words"]) not in parts:
            parts.append(cut)
        shape = ", ".join(map(str, one["shape"]))
        rate = f", from audio of {one['sample_rate']} Hz" if "sample_rate" in one else ""
        parts.append(f"Input {name}, {one['dtype']} [{shape}]{rate}: {one['in_words']}")
    parts += [f"Output {name}: {text}." for name, text in preprocessing["outputs"].items()]
    return "\n\n".join(parts)


def largest_difference(
    ensemble: Ensemble, path: Path, songs: Sequence[SongFeatures]
) -> tuple[float, int]:
    """How far onnxruntime's probabilities of songs and chunks are from PyTorch's, at most.

    Also: for how many songs the most probable genre is different.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    largest, other = 0.0, 0
    for features in songs:
        expected = ensemble.predict_song(features)
        columns = [one.columns for one in features.read]
        values = (chunks.astype(np.float32) for one in columns for chunks in one.values())
        inputs = dict(zip(_names(columns), values, strict=True))
        chunks, song = session.run(None, inputs)
        differences = [np.abs(chunks - expected.chunks).max(), np.abs(song - expected.song).max()]
        largest = max(largest, *map(float, differences))
        other += int(song.argmax() != expected.song.argmax())
    return largest, other


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's pages of hints, which are for those who write exporters."""
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
