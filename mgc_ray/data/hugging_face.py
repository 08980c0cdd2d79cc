"""Hugging Face Audio Spectrogram Transformers, from a folder or by their name in the hub.

They are read by the library transformers, which is optional (the extra [hf] of this program) and
takes seconds to import, so it is imported only where a model is read or built.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.files import read_json

MODEL_TYPE = "audio-spectrogram-transformer"
NOT_STATED = "not stated"
_CARD = "README.md"
_REMEDY = (
    "give a folder with config.json, preprocessor_config.json and the weights of one, or "
    "OWNER/NAME of one in the Hugging Face hub"
)


def is_hugging_face(source: str | Path) -> bool:
    """Whether a folder holds a model of transformers, or a name that is no path could be one."""
    folder = Path(source)
    if not folder.exists():
        return re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) is not None
    config = folder / "config.json"
    return config.exists() and "model_type" in read_json(config, "checkpoint or model", _REMEDY)


def import_transformers(needed_by: str = "an Audio Spectrogram Transformer") -> Any:
    """The library, or RequestError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise RequestError(
            f"{needed_by} needs the library transformers, but here: {error}. "
            'Install it: pip install "mgc-ray[hf]"'
        ) from None
    return transformers


def read_pretrained(kind: str, source: str | Path, **options: Any) -> Any:
    """What `from_pretrained` of a class of transformers gives for an AST, e.g. "ASTModel".

    Raises RequestError where transformers is missing, where the source is no AST, and where a file
    of it is missing or damaged.
    """
    known = Path(source).exists()
    described = str(source) if known else f"{source} (no folder here, so a name in the hub)"
    transformers = import_transformers(described)
    try:
        with _quiet(transformers):
            found = transformers.ASTConfig.get_config_dict(str(source))[0].get("model_type")
            result = getattr(transformers, kind).from_pretrained(str(source), **options)
    except Exception as error:  # of the hub, of JSON, of pickle, of safetensors, of PyTorch, ...
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"{described} is no {MODEL_TYPE} that can be read ({reason}): {_REMEDY}"
        ) from None
    if found != MODEL_TYPE:
        raise RequestError(f"{described} must be an {MODEL_TYPE}, but it is a {found}: {_REMEDY}")
    return result


def stated_training(source: str | Path) -> str:
    """What a model was trained on, and on top of what, by its card; or "not stated"."""
    from huggingface_hub import hf_hub_download, metadata_load

    folder = Path(source)
    try:
        with _quiet(import_transformers()):
            path = folder if folder.exists() else Path(hf_hub_download(str(source), _CARD)).parent
        card = metadata_load(path / _CARD) or {}
        data, base = (_listed(card.get(name)) for name in ("datasets", "base_model"))
    except Exception:  # no card, or none that can be read
        return NOT_STATED
    return (f"trained on {data}" if data else NOT_STATED) + (f", on top of {base}" if base else "")


def _listed(value: list[str] | str | None) -> str:
    return ", ".join([value] if isinstance(value, str) else value or [])


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars, and without a table of weights: missing ones are an error here."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
