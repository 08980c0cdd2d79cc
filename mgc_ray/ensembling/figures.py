"""The figures of a classifier on labelled tracks."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mgc_ray.ensembling.calibration import calibration_error, log_loss, temper
from mgc_ray.training.metrics import (
    accuracy,
    bootstrap_interval,
    confusion_matrix,
    macro_f1,
    track_probs,
)


def measure(
    chunk_probs: np.ndarray,
    track: np.ndarray,
    track_genre: np.ndarray,
    group: Sequence[str],
    genres: Sequence[str],
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Figures from the chunks' probabilities [N, C], as plain JSON values.

    `track` [N] is each chunk's track, an index into `track_genre` [K] and `group` [K]. Log-loss and
    calibration error are those of the tracks' probabilities at this temperature.
    """
    present, probs = track_probs(chunk_probs, track)
    true, predicted = track_genre[present], probs.argmax(1)
    tempered = temper(probs, temperature)
    interval = bootstrap_interval(predicted == true, np.asarray(group)[present])
    return {
        "track_accuracy": accuracy(predicted, true),
        "interval_95": asdict(interval),
        "chunk_accuracy": accuracy(chunk_probs.argmax(1), track_genre[track]),
        "macro_f1": macro_f1(predicted, true, len(genres)),
        "log_loss": log_loss(tempered, true),
        "calibration_error": calibration_error(tempered, true),
        "tracks": len(present),
        "chunks": len(track),
        "genres": list(genres),
        "confusion_matrix": confusion_matrix(predicted, true, len(genres)).tolist(),
    }


def also_trained_on(ensemble: dict[str, Any]) -> str:
    """What some member was trained on beside the dataset itself; "" for nothing.

    `ensemble` is what gather.py returns.
    """
    own = {"source": ensemble["source"], "protocol": ensemble["protocol"], "task": "genres"}
    before = [one for one in ensemble["trained_on"] if one != own]
    words = ", ".join(f"{one['source']} ({one['task']})" for one in before)
    if any(one["source"] == own["source"] for one in before):
        words += " - THE SAME TRACKS, so its weights may have seen those that it is tested on"
    return words


def in_words(figures: dict[str, Any]) -> str:
    """E.g. `81.2 % of 32 tracks (95 % interval 65.6 to 93.8), chunks 75.0 %, macro-F1 0.803`."""
    interval = figures["interval_95"]
    return (
        f"{figures['track_accuracy']:.1%} of {figures['tracks']} tracks (95 % interval "
        f"{interval['low']:.1%} to {interval['high']:.1%}), chunks "
        f"{figures['chunk_accuracy']:.1%}, macro-F1 {figures['macro_f1']:.3f}"
    )
