"""The parts of gpu.py: each gives figures, and whether what must hold does."""

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from training import BASELINE_SIZE, ENDLESS, ours, random_chunks, usual_metrics

from mgc_ray.data.chunks import Chunks
from mgc_ray.data.features import FeatureSet
from mgc_ray.data.features.array import Array
from mgc_ray.settings import Params
from mgc_ray.training.loop import train
from tests.conftest import make_chunks

Figures = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """A GPU with real sizes, or a CPU with tiny ones."""

    rehearse: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.rehearse else "cuda")

    def size(self, real: int, tiny: int) -> int:
        return tiny if self.rehearse else real


# what makes a family draw nothing at random
_STILL: Params = {"mixup": 0.0, "masks": 0, "label_smoothing": 0.0}
_WITHOUT_NOISE: dict[str, Params] = {
    "cnn": {"dropout": 0.0},
    "gru": {"dropout": 0.0},
    "lstm": {"dropout": 0.0},
    "attention": {"dropout": 0.0, "stochastic_depth": 0.0},
    "statistics": {"dropout": 0.0, "noise": 0.0},
    "discriminant": {},
}
_PARTS: dict[str, Callable[[Scale], Figures]] = {}


def part(function: Callable[[Scale], Figures]) -> Callable[[Scale], Figures]:
    _PARTS[function.__name__] = function
    return function


def figures_of(name: str, rehearse: bool) -> Figures:
    """Run a part here; also where it fails there are figures, which say why."""
    try:
        return _PARTS[name](Scale(rehearse))
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "why": f"{type(error).__name__}: {str(error)[:300]}"}


def judged(figures: Figures, **rules: bool) -> Figures:
    """The figures, with the names of the rules that do not hold."""
    broken = [name.replace("_", " ") for name, holds in rules.items() if not holds]
    return {"ok": not broken, **({"why": "not: " + ", ".join(broken)} if broken else {}), **figures}


# --- is it right? ---


@part
def machine(scale: Scale) -> Figures:
    """What is measured on."""
    cuda = torch.cuda.is_available()
    figures: Figures = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cpus": os.cpu_count(),
    }
    if cuda:
        device = torch.cuda.get_device_properties(0)
        figures |= {
            "device": device.name,
            "gib": round(device.total_memory / 2**30, 1),
            "cudnn": torch.backends.cudnn.version(),
        }
    return judged(figures, PyTorch_sees_a_GPU=cuda or scale.rehearse)


@part
def precision(scale: Scale) -> Figures:
    """In which precision the recurrent layer runs under autocast; what gradients lose by that."""
    from mgc_ray.models.gru import Config, Model
    from mgc_ray.training.descent import precision_of

    device, bands, batch = scale.device, scale.size(128, 16), scale.size(8, 2)
    torch.manual_seed(0)
    model = Model(Config(dropout=0.0), bands, 10).to(device)
    x = torch.randn(batch, bands, scale.size(2584, 32), device=device)  # a chunk of 30 s
    pull = 0.01 / 32 * torch.randn(batch, 10, device=device)  # of a network that is nearly right
    types: list[torch.dtype] = []
    model.recurrent.register_forward_hook(lambda _, __, given: types.append(given.dtype))

    def gradients(autocast: bool) -> tuple[list[torch.Tensor], float]:
        started = time.perf_counter()
        for _ in range(3):
            model.zero_grad()
            with precision_of(device, autocast):
                logits = model(x)
            logits.float().backward(pull)
        _synchronise(device)
        taken = (time.perf_counter() - started) / 3
        return [p.grad.float().clone() for p in model.parameters() if p.grad is not None], taken

    with _exact():
        right, _ = gradients(False)
    types.clear()
    rounded, mixed_seconds = gradients(True)
    dtype = str(types[0])
    _, plain_seconds = gradients(False)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(rounded, right, strict=True)]
    return judged(
        {
            "recurrent_layer_runs_in": dtype,
            "first_gradient_error": errors[0],
            "largest_gradient_error": max(errors),
            "ms_autocast": 1e3 * mixed_seconds,
            "ms_float32": 1e3 * plain_seconds,
        },
        recurrent_layer_in_float32=dtype == "torch.float32" or scale.rehearse,
        gradients_hold=max(errors) < 0.5,
    )


@part
def families(scale: Scale) -> Figures:
    """The losses of each family on the device against a CPU's; a batch is all chunks."""
    chunks = make_chunks(24, 2, bands=scale.size(64, 16), frames=scale.size(128, 40))
    figures: Figures = {}
    rules = {}
    for family, own in _WITHOUT_NOISE.items():
        params = _STILL | own | {"max_epochs": scale.size(4, 2), "patience": 9, "batch_size": 999}
        if family == "discriminant":  # its weights are solved for
            params = {}

        def losses(
            device: str | torch.device, autocast: bool, family: str = family, p: Params = params
        ) -> list[float]:
            epochs = train(family, p, chunks, device, autocast=autocast)
            return [e.metrics[name] for e in epochs for name in ("train_loss", "val_loss")]

        expected = losses("cpu", False)
        with _exact():
            exact = _largest_difference(losses(scale.device, False), expected)
        mixed = _largest_difference(losses(scale.device, True), expected)
        figures[family] = {"float32": exact, "bf16": mixed}
        rules[f"{family}_in_float32"] = exact < 2e-3
        rules[f"{family}_in_bf16"] = mixed < 3e-2
    return judged({"relative_difference": figures}, **rules)


def _largest_difference(found: list[float], expected: list[float]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(abs(a - b) / max(abs(b), 0.05) for a, b in pairs)


@part
def resume(scale: Scale) -> Figures:
    """A training that is continued from its state is the one that was never interrupted."""
    figures, rules = {}, {}
    for name, params in {
        "gru": {"dropout": 0.3, "averaging": 0.99},
        "gru_of_2_layers": {"dropout": 0.3, "layers": 2},
        "attention": {"pitch_shift": 2.0, "time_shift": 0.3},
    }.items():
        family = name.partition("_")[0]
        params |= {"max_epochs": 4, "batch_size": 16, "patience": 9}
        chunks = make_chunks(12, 2, bands=16, frames=40)
        whole, state = [], b""
        for epoch in train(family, params, chunks, scale.device):
            whole.append(epoch.metrics["train_loss"])
            if epoch.number == 2 and epoch.state:
                state = epoch.state({})
        continued = train(family, params, chunks, scale.device, state=state)
        losses = [epoch.metrics["train_loss"] for epoch in continued]
        figures[name] = _largest_difference(losses, whole[2:])
        rules[f"{name}_continues_as_it_was"] = figures[name] < 1e-3
    return judged({"relative_difference": figures}, **rules)


@part
def waits(scale: Scale) -> Figures:
    """How often a step waits for the device, and the lines that do."""
    chunks = make_chunks(24, 4, bands=scale.size(128, 16), frames=64)
    runs: dict[str, Params] = {family: {} for family in _WITHOUT_NOISE if family != "discriminant"}
    runs["gru, averaged"] = {"averaging": 0.99}
    runs["cnn, augmented"] = {"pitch_shift": 2.0, "time_stretch": 0.1, "gain": 0.2, "crop": 0.6}
    figures, rules = {}, {}
    for name, params in runs.items():
        family = name.partition(",")[0]
        loop = train(
            family, params | {"max_epochs": 2, "batch_size": 8, "crops": 2}, chunks, scale.device
        )
        next(loop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if not scale.rehearse:
                torch.cuda.set_sync_debug_mode("warn")
            next(loop)
            if not scale.rehearse:
                torch.cuda.set_sync_debug_mode("default")
        loop.close()
        lines = Counter(
            f"{Path(one.filename).name}:{one.lineno}"
            for one in caught
            if "synchroniz" in str(one.message)
        )
        per_step = sum(lines.values()) / (2 * len(chunks.rows("train")) / 8)
        figures[name] = {"per_step": per_step, "lines": dict(lines.most_common(3))}
        rules[f"{name}_under_one_a_step"] = per_step < 1
    return judged(figures, **rules)


# --- how fast is it? ---


def gtzan_sized(scale: Scale) -> Chunks:
    """Noise of the size of GTZAN's train and valid parts: 443 and 197 tracks of ten chunks."""
    if scale.rehearse:
        return random_chunks(64, 16, 16, 40)
    path = Path(tempfile.gettempdir()) / f"gpu_check_{os.getuid()}.npy"
    if not path.exists():
        x = np.random.default_rng(0).standard_normal((4430 + 1970, *BASELINE_SIZE), np.float32)
        x *= 15
        x -= 40
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, x)
        temporary.rename(path)
    small = random_chunks(4430, 1970, 1, 1)
    bands, frames = BASELINE_SIZE
    features = FeatureSet({"array": Array(bands=bands, frames=frames, value_type="float32")})
    info = replace(small.info, features=features)
    return replace(small, info=info, features={"array": np.load(path)})


@part
def thirty_epochs(scale: Scale) -> Figures:
    """30 epochs of `gru` with validation, as a trial takes them."""
    chunks, epochs = gtzan_sized(scale), scale.size(30, 2)
    chunks.band_statistics  # noqa: B018  a search computes it once
    started, taken = time.perf_counter(), []
    for epoch in train("gru", {"max_epochs": epochs, "patience": 99}, chunks, scale.device):
        taken.append(epoch.metrics["epoch_seconds"])
        last = epoch.metrics
    seconds = time.perf_counter() - started
    figures = {
        "all": seconds,
        "first_epoch": taken[0],
        "epoch": statistics.median(taken[1:]),
        "chunks_per_second": round(last["chunks_per_second"]),
        "memory_mib": round(last["memory_mib"]),
    }
    return judged(figures, within_40_s=seconds < 40 or scale.rehearse)


@part
def loops(scale: Scale) -> Figures:
    """Chunks per second of the program's loop, as it is and varied, and of the usual one's."""
    chunks = gtzan_sized(scale)
    variants: dict[str, Params] = {
        "as_it_is": {},
        "averaged": {"averaging": 0.99},
        "augmented": {"pitch_shift": 2.0, "time_stretch": 0.1, "time_shift": 0.3, "gain": 0.2},
        "batch_16": {"batch_size": 16},
        "batch_128": {"batch_size": 128},
    }

    def rate(loop: Iterator[dict[str, float]], epochs: int) -> int:
        next(loop)
        return round(statistics.median(next(loop)["chunks_per_second"] for _ in range(epochs)))

    figures: Figures = {}
    for family in ("cnn", "gru"):
        found = {
            name: rate(ours(family, ENDLESS | params, chunks, scale.device), 3)
            for name, params in variants.items()
        }
        usual = {
            f"usual_{workers}_workers": rate(
                usual_metrics(family, ENDLESS, chunks, scale.device, workers), 1
            )
            for workers in ((0,) if scale.rehearse else (0, 8))
        }
        ratio = found["as_it_is"] / max(usual.values())
        figures[family] = found | usual | {"ratio": round(ratio, 2)}
    faster = all(figures[family]["ratio"] > 1 for family in figures)
    return judged(figures, faster_than_the_usual_loop=faster or scale.rehearse)


@part
def launches(scale: Scale) -> Figures:
    """Kernels per step of training, and what takes the time on the device."""
    from torch.profiler import ProfilerActivity, profile

    # a few steps only: the profiler takes a minute to sort out those of a whole epoch
    batch, steps = scale.size(32, 8), 16
    chunks = random_chunks(batch * steps, batch, *(scale.size(128, 16), scale.size(258, 40)))
    cuda = not scale.rehearse
    figures: Figures = {}
    for family in ("cnn", "gru", "attention"):
        loop = train(family, ENDLESS | {"batch_size": batch}, chunks, scale.device)
        next(loop)
        rate = max(next(loop).metrics["chunks_per_second"] for _ in range(3))
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=kinds) as seen:
            next(loop)
        loop.close()
        events = seen.key_averages()
        count = sum(e.count for e in events if e.key.startswith(("cudaLaunch", "cuLaunch")))
        slowest = sorted(events, key=lambda e: -e.self_device_time_total)[:3]
        figures[family] = {
            "ms_per_step": 1e3 * batch / rate,
            "launches_per_step": round(count / steps),  # with those of one batch of validation
            "ms_on_the_device": sum(e.self_device_time_total for e in events) / 1e3 / steps,
            "slowest": [e.key[:40] for e in slowest],
        }
    return judged(figures)


@part
def sharing(scale: Scale) -> Figures:
    """Processes that train at once on one GPU: trials of 30 epochs per hour."""
    gtzan_sized(scale)  # written once
    counts = {
        "gru": (1, 2) if scale.rehearse else (1, 4, 8),
        "cnn": () if scale.rehearse else (1, 8),
    }
    rates = {
        f"{family}_{count}": round(3600 * _epochs_per_second(scale, family, count) / 30, 1)
        for family, numbers in counts.items()
        for count in numbers
    }
    gain = rates["gru_2" if scale.rehearse else "gru_4"] / rates["gru_1"]
    return judged(
        {"trials_per_hour": rates, "gain": round(gain, 2)},
        sharing_pays=gain > 1.2 or scale.rehearse,
    )


def _epochs_per_second(scale: Scale, family: str, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    arguments = (scale, family, scale.size(8, 1), barrier, results)
    children = [
        context.Process(target=_train_beside_others, args=arguments, daemon=True)
        for _ in range(count)
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    return sum(found)


def _train_beside_others(
    scale: Scale, family: str, window: float, barrier: Any, results: Any
) -> None:
    torch.set_num_threads(1)
    loop = train(family, ENDLESS, gtzan_sized(scale), scale.device)
    next(loop)
    barrier.wait()
    started, epochs, seconds = time.perf_counter(), 0, 0.0
    while seconds < window:
        next(loop)
        epochs, seconds = epochs + 1, time.perf_counter() - started
    results.put(epochs / seconds)


# --- Ray ---

_LOG, _DEVICE = "GPU_CHECK_LOG", "GPU_CHECK_DEVICE"


def _prepare_worker() -> None:
    """In each of Ray's processes: note where a network computes, and take the memory asked for."""
    from mgc_ray.models import gru

    pretended = os.environ[_DEVICE] == "cpu"
    build, forward = gru.Model.__init__, gru.Model.forward
    if pretended:
        from mgc_ray.data import device

        device.check_gpu = lambda: None  # there are GPUs in name only

    def build_and_hold(self: Any, config: Any, bands: int, genres: int) -> None:
        from ray import tune

        share = tune.get_context().get_trial_resources().bundles[0]["GPU"]
        part = {128: 0.45, 512: 1.2}.get(config.hidden, 0.0)  # of all of the GPU's memory
        if pretended and part > (0.5 if share == 1 else 0.25):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        if not pretended and part:
            total = torch.cuda.get_device_properties(0).total_memory
            self.held = torch.empty(int(part * total), dtype=torch.uint8, device="cuda")
        if part:
            time.sleep(0.2 if pretended else 8)  # so that the trials meet
        build(self, config, bands, genres)
        self.noted = False

    def noted_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not self.noted:
            self.noted = True
            with open(os.environ[_LOG], "a") as file:
                file.write(f"{os.getpid()} {x.device}\n")
        return forward(self, x)

    gru.Model.__init__, gru.Model.forward = build_and_hold, noted_forward  # type: ignore[method-assign]


@contextlib.contextmanager
def _ray(scale: Scale, folder: str) -> Iterator[Any]:
    """A cluster of this machine, with GPUs in name where it has none."""
    from mgc_ray.terminal.process import prepare_process

    prepare_process()
    import ray

    from mgc_ray.tuning.cluster import cluster_now

    os.environ |= {_LOG: f"{folder}/log", _DEVICE: scale.device.type}
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for its processes, which need this file
    ray.init(
        "local",
        num_cpus=4 if scale.rehearse else None,
        num_gpus=1 if scale.rehearse else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": _prepare_worker},
    )
    try:
        yield cluster_now()
    finally:
        ray.shutdown()


@part
def task_devices(scale: Scale) -> Figures:
    """Ray finds the GPU by itself, and a task without one does not use it."""

    def device() -> str:
        from mgc_ray.data.device import best_device

        return str(best_device())

    with tempfile.TemporaryDirectory() as folder, _ray(scale, folder) as cluster:
        import ray

        without, holding = (
            ray.get(ray.remote(num_cpus=1, num_gpus=gpus)(device).remote()) for gpus in (0, 0.25)
        )
    return judged(
        {"cpus": cluster.cpus, "gpus": cluster.gpus, "without": without, "with": holding},
        Ray_finds_a_GPU=cluster.gpus >= 1,
        a_task_without_one_is_on_the_CPU=without == "cpu",
        a_task_with_one_is_on_the_GPU=holding == scale.device.type,
    )


def _trials(folder: Path, cluster: Any, hidden: int, trials: int) -> list[Any]:
    """A search whose trials have so many hidden units, at four trials per GPU."""
    from tests.tuning.searching import search as run

    def space(trial: Any) -> Params:
        return {
            "blocks": 2,
            "channels": 4,
            "batch_size": 8,
            "hidden": trial.suggest_categorical("hidden", [hidden]),
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        }

    settings = {"trials": trials, "max_epochs": 3, "grace_period": 3, "gpus_per_trial": 0.25}
    # the first trial would have the family's defaults
    with mock.patch("mgc_ray.tuning.searcher.default_params", return_value={}):
        return run(folder, cluster, space, make_chunks(), **settings)


@part
def search(scale: Scale) -> Figures:
    """Trials at a quarter of a GPU each, as `mgc_ray.search` runs them."""
    with tempfile.TemporaryDirectory() as folder, _ray(scale, folder) as cluster:
        started = time.perf_counter()
        records = _trials(Path(folder) / "search", cluster, 16, 8)
        seconds = time.perf_counter() - started
        lines = [line.split() for line in Path(folder, "log").read_text().splitlines()]
    status = Counter(record.status for record in records)
    devices = Counter(device.partition(":")[0] for _, device in lines)
    processes = len({process for process, _ in lines})
    reasons = sorted({record.reason for record in records if record.reason})[:3]
    return judged(
        {
            "took": seconds,
            "status": status,
            "devices": devices,
            "processes": processes,
            "reasons": reasons,
        },
        all_completed=status == {"completed": 8},
        all_on_the_device=set(devices) == {scale.device.type},
        four_at_once=processes >= 4,
    )


@part
def too_large(scale: Scale) -> Figures:
    """Trials of 0.45 GPU each at four per GPU, and one of 1.2: run again alone, or failed."""
    with tempfile.TemporaryDirectory() as folder, _ray(scale, folder) as cluster:
        records = _trials(Path(folder) / "half", cluster, 128, 4)
        (never,) = _trials(Path(folder) / "whole", cluster, 512, 1)
    alone = [r for r in records if r.reason.startswith("out of memory on a shared GPU")]
    status = Counter(record.status for record in records)
    return judged(
        {
            "status": status,
            "run_again_alone": len(alone),
            "reasons": sorted({r.reason[:100] for r in [*records, never] if r.reason}),
        },
        all_completed=status == {"completed": 4},
        some_run_again_alone=len(alone) >= 1,
        what_is_too_large_fails=never.status == "failed"
        and never.reason.startswith("out of GPU memory, alone on it"),
    )


# --- prediction and features ---


@part
def prediction(scale: Scale) -> Figures:
    """The included ensemble's probabilities on the device and on a CPU."""
    from mgc_ray.corpus.composer import GENRES
    from mgc_ray.corpus.files import write_track
    from mgc_ray.ensembling import saved

    ensemble = saved.load_ensemble(saved.shipped_model())
    with tempfile.TemporaryDirectory() as folder:
        songs = []
        for genre in GENRES[: scale.size(6, 1)]:
            path = Path(folder) / f"{genre}.wav"
            write_track(path, genre, 0, 0, 30.0)
            songs.append(ensemble.compute(path))
    probs, seconds = {}, {}
    for device in (scale.device, torch.device("cpu")):
        saved.best_device = lambda device=device: device  # type: ignore[attr-defined,misc]
        ensemble.predict_songs(songs[:1])
        started = time.perf_counter()
        probs[device] = np.stack([ensemble.predict_songs([song])[0].song for song in songs])
        seconds[str(device)] = (time.perf_counter() - started) / len(songs)
    difference = float(np.abs(probs[scale.device] - probs[torch.device("cpu")]).max())
    return judged(
        {"largest_difference": difference, "seconds_per_song": seconds}, equal=difference < 1e-4
    )


@part
def encoder(scale: Scale) -> Figures:
    """A dataset of a pre-trained network's outputs, made with and without the GPU."""
    import soundfile

    from mgc_ray.data.chunks import load_chunks
    from tests.pipeline.making import make

    random = np.random.default_rng(0)
    made, seconds = {}, {}
    with tempfile.TemporaryDirectory() as name, _ray(scale, name):
        for genre in ("jazz", "rock"):
            folder = Path(name) / "music" / genre
            folder.mkdir(parents=True)
            for i in range(scale.size(60, 4)):
                noise = 0.1 * random.standard_normal(22_050 * scale.size(30, 3)).astype(np.float32)
                soundfile.write(folder / f"{i}.wav", noise, 22_050)
        for kind in ("gpu", "cpu"):
            _hide_gpus(kind == "cpu" or scale.rehearse)
            dataset, started = Path(name) / kind, time.perf_counter()
            make(Path(name) / "music", dataset, features=("musicnn",))
            seconds[kind] = time.perf_counter() - started
            chunks = load_chunks(dataset, ("train", "valid", "test"))
            assert isinstance(chunks, Chunks)
            made[kind] = chunks.features["musicnn"].astype(np.float32)
    difference = float(np.abs(made["gpu"] - made["cpu"]).max())
    return judged({"took": seconds, "largest_difference": difference}, equal=difference < 2e-2)


def _hide_gpus(hidden: bool) -> None:
    from mgc_ray.tuning import tasks

    free = tasks.free_gpus
    tasks.free_gpus = (lambda: 0) if hidden else free


# --- running ---


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Without TensorFloat-32, which cuDNN's layers take by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
