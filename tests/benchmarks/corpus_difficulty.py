"""How hard is the built-in corpus: a linear model on mean spectra against the families' defaults.

    python tests/benchmarks/corpus_difficulty.py --seeds 0 1 2 --tracks-per-genre 30 --seconds 9

Each seed is another corpus and another split (by artist, 64/16/20 %). The linear model is a
logistic regression on a track's mean log-mel spectrum, its regularisation chosen on validation
tracks; a network is the family's defaults, its best epoch chosen on validation tracks. Prints test
track accuracies, mean and standard deviation; --json prints them as the last line.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgc_ray.config import ClusterConfig, DatasetConfig
from mgc_ray.corpus.files import write_corpus
from mgc_ray.data.chunks import Chunks, load_chunks
from mgc_ray.evaluation.metrics import accuracy, track_probs
from mgc_ray.pipeline.preprocess import preprocess
from mgc_ray.pipeline.tables import read_tables
from mgc_ray.training.batches import batches
from mgc_ray.training.epoch import predict_probs
from mgc_ray.training.loop import train


def linear(chunks: Chunks) -> float:
    """Test track accuracy of a logistic regression on each track's mean spectrum."""
    spectra = chunks.features["log_mel"].mean(2)
    means = np.stack([spectra[chunks.track == i].mean(0) for i in range(len(chunks.tracks))])
    part = np.array([track.split for track in chunks.tracks])
    x = {name: means[part == name] for name in ("train", "valid", "test")}
    y = {name: chunks.track_genre[part == name] for name in ("train", "valid", "test")}
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)).fit(
            x["train"], y["train"]
        )
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    ]
    best = max(models, key=lambda model: model.score(x["valid"], y["valid"]))
    return float(best.score(x["test"], y["test"]))


def network(family: str, chunks: Chunks, epochs: int, seed: int) -> float:
    """Test track accuracy of a family's defaults at the best validation epoch."""
    rows = chunks.rows("test")
    source = batches(chunks, ["log_mel"], torch.device("cpu"))
    result = 0.0
    params = {"max_epochs": epochs, "patience": epochs, "seed": seed}
    for epoch in train(family, params, chunks):
        if epoch.best:
            tracks, probs = track_probs(
                predict_probs(epoch.classifier, source, rows), chunks.track[rows]
            )
            result = accuracy(probs.argmax(1), chunks.track_genre[tracks])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tracks-per-genre", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=9.0)
    parser.add_argument("--families", nargs="*", default=["cnn", "gru"])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    accuracies: dict[str, list[float]] = defaultdict(list)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as name:
            table = write_corpus(
                Path(name) / "corpus", args.tracks_per_genre, seed, args.seconds, workers=1
            )
            tables = read_tables(DatasetConfig(tracks=str(table), split_seed=seed))
            preprocess(tables, Path(name) / "dataset", ClusterConfig())
            chunks = load_chunks(Path(name) / "dataset", ("train", "valid", "test"))
        accuracies["linear"].append(linear(chunks))
        for family in args.families:
            accuracies[family].append(network(family, chunks, args.epochs, seed))
        last = {name: round(values[-1], 3) for name, values in accuracies.items()}
        print(f"seed {seed}: {last}", flush=True)
    for name, values in accuracies.items():
        print(
            f"{name:8} mean {np.mean(values):.3f}, deviation {np.std(values, ddof=1):.3f}, "
            f"n = {len(values)}"
        )
    if args.json:
        print(json.dumps(accuracies))


if __name__ == "__main__":
    main()
