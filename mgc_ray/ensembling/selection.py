"""Which members an ensemble has, and with what weights.

Source: R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
"""

import numpy as np

_ROUNDS = 25


def select(probs: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Greedy selection with replacement; weights [members], summing to 1, 0 for those left out.

    `probs` [members, tracks, genres] of tracks that no member was trained on, `true` [tracks].
    In each round the member joins whose joining gives the highest accuracy of the mean, ties going
    to the lower log-loss and then to the earlier member; the best round counts. Members are best
    given best first.
    """
    if probs.ndim != 3 or probs.shape[1] != len(true) or 0 in probs.shape:
        raise ValueError(
            f"probs must be [members, tracks, genres] for {len(true)} tracks, not {probs.shape}"
        )
    total = np.zeros(probs.shape[1:])
    counts = np.zeros(len(probs), np.int64)
    best_score, best_counts = (-1.0, -np.inf), counts
    for size in range(1, _ROUNDS + 1):
        scores = [_score((total + p) / size, true) for p in probs]
        chosen = max(range(len(probs)), key=lambda m: (*scores[m], -m))
        total = total + probs[chosen]
        counts = counts + (np.arange(len(probs)) == chosen)
        if scores[chosen] > best_score:
            best_score, best_counts = scores[chosen], counts
    return best_counts / best_counts.sum()


def _score(probs: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Accuracy and minus the log-loss, rounded so that the order of addition decides no tie."""
    right = probs[np.arange(len(true)), true]
    log_loss = -np.log(np.maximum(right, 1e-12)).mean()
    return float(np.mean(probs.argmax(1) == true)), -round(float(log_loss), 9)
