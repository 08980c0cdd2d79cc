"""Audio encoders of Hugging Face, from a folder or by their name in the hub.

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
_MOST_LAYERS, _MOST = 1000, 10_000_000  # a damaged number would ask for all time and memory
_SMALL = 1 << 20  # weights of any network
_MOST_WEIGHTS = 4_000_000_000  # of one in the hub; the largest encoders of audio have two billion
_BYTES, _LARGEST = 16, 1 << 26  # of a file in the hub: for each weight, and for all else
_HUB_SECONDS = 20.0
_LAYERS = ("num_hidden_layers", "hidden_size")
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


def check_architecture(settings: dict[str, Any]) -> None:
    """Raise RequestError for a network that would take for ever to build, whatever its weights."""
    layers = settings.get("num_hidden_layers", 1)
    numbers = [value for value in settings.values() if isinstance(value, int | float)]
    if not isinstance(layers, int) or layers > _MOST_LAYERS or max(numbers, default=0) > _MOST:
        raise RequestError(
            f"the settings of a network must be at most {_MOST_LAYERS} layers and numbers up to "
            f"{_MOST}, but these are damaged ({layers!r} layers, {max(numbers, default=0)})"
        )


def _check_size(source: str | Path, network: Any, config: Any) -> None:
    """Raise RequestError where a network is much larger than the files of its weights.

    Its tensors would be made before they are compared with what is in the files.
    """
    import torch

    check_architecture(config.to_dict())
    with torch.device("meta"):
        parameters = sum(one.numel() for one in network(config).parameters())
    folder = Path(source)
    if folder.exists():
        files = (*folder.glob("*.safetensors"), *folder.glob("*.bin"))
        most = _SMALL + sum(path.stat().st_size for path in files)  # a byte each, or more
        if parameters > most:
            raise RequestError(
                f"config.json describes {parameters} weights, which its files cannot hold"
            )
    else:
        _check_download(str(source), parameters)


def _check_download(name: str, parameters: int) -> None:
    """Refuse to download what no network of its config.json needs, or fits into a machine.

    A hub that cannot be asked, as there is no network, gives nothing but what is here already.
    """
    if parameters > _MOST_WEIGHTS:
        raise RequestError(f"config.json describes {parameters} weights, too many to be used here")
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=_HUB_SECONDS).siblings or []
    except Exception:
        return
    sizes = {one.rfilename: one.size or 0 for one in files}
    for file, size in sizes.items():
        most = _BYTES * parameters if file.endswith((".safetensors", ".bin")) else 0
        if file.endswith((".safetensors", ".bin", ".json")) and size > _LARGEST + most:
            raise RequestError(
                f"{file} has {size / 1e9:.1f} GB, but the network has {parameters} weights"
            )


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
            if found == MODEL_TYPE and kind == "ASTModel":
                config = transformers.ASTConfig.from_pretrained(str(source))
                _check_size(source, transformers.ASTModel, config)
            result = getattr(transformers, kind).from_pretrained(str(source), **options)
    except Exception as error:  # of the hub, of JSON, of pickle, of safetensors, of PyTorch, ...
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"{described} is no {MODEL_TYPE} that can be read ({reason}): {_REMEDY}"
        ) from None
    if found != MODEL_TYPE:
        raise RequestError(f"{described} must be an {MODEL_TYPE}, but it is a {found}: {_REMEDY}")
    return result


def read_encoder(source: str) -> tuple[Any, Any]:
    """The feature extractor and the network of any audio encoder that gives hidden states.

    Raises RequestError where transformers is missing, and for what is no such encoder.
    """
    known = Path(source).exists()
    described = source if known else f"{source} (no folder here, so a name in the hub)"
    transformers = import_transformers(described)
    try:
        with _quiet(transformers):
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
            config = transformers.AutoConfig.from_pretrained(source)
            _check_size(source, transformers.AutoModel.from_config, config)
            network = transformers.AutoModel.from_pretrained(source)
    except Exception as error:  # of the hub, of JSON, of pickle, of safetensors, of PyTorch, ...
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"{described} is no audio encoder that can be read ({reason}): give a folder with "
            "config.json, preprocessor_config.json and weights, or OWNER/NAME of the hub"
        ) from None
    config = network.config
    has_layers = all(isinstance(getattr(config, n, None), int) for n in _LAYERS)
    if config.is_encoder_decoder or not has_layers or not hasattr(extractor, "sampling_rate"):
        raise RequestError(
            f"{described} must be an encoder of audio with hidden layers, as wav2vec2, HuBERT or "
            f"AST, but it is {config.model_type!r}: give another one"
        )
    return extractor, network


def stated_licence(source: str | Path) -> str:
    """The licence of a model's weights by its card; or "not stated"."""
    return _listed(_card_of(source).get("license")) or NOT_STATED


def stated_training(source: str | Path) -> str:
    """What a model was trained on, and on top of what, by its card; or "not stated"."""
    data, base = (_listed(_card_of(source).get(name)) for name in ("datasets", "base_model"))
    return (f"trained on {data}" if data else NOT_STATED) + (f", on top of {base}" if base else "")


def _card_of(source: str | Path) -> dict[str, Any]:
    """What a model's card states, {} where there is none that can be read."""
    from huggingface_hub import hf_hub_download, metadata_load

    folder = Path(source)
    try:
        with _quiet(import_transformers()):
            path = folder if folder.exists() else Path(hf_hub_download(str(source), _CARD)).parent
        return dict(metadata_load(path / _CARD) or {})
    except Exception:
        return {}


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
