"""A song as a vector, by which songs that sound alike are found.

float32 [genres + 512] of length 1: the cosine of two songs, a dot product, is the mean of two
similarities.

- Genres: the square roots of the song's probabilities. The cosine is the Bhattacharyya coefficient
  of two songs' genres, 0 to 1 (A. Bhattacharyya, 1943).
- Sound: what each member's last layer (`head`) is given, its mean over the chunks, scaled to length
  1. Of networks these are the activations of the layer before, of `linear` and `discriminant` the
  standardised inputs. The cosine is the mean of the members' cosines, by their weights. So that the
  length does not depend on the members, each is projected onto the same 512 values by a matrix of
  random numbers, always the same ones; a cosine changes by 0.04 or less (one deviation; W. Johnson,
  J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984).

Why both: see results/README.md, "Similar songs".
"""

import functools
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from torch import Tensor, nn

from mgc_ray.ensembling.saved import Ensemble, SongFeatures, SongPrediction
from mgc_ray.task import in_double

SOUND = 512  # values
_LARGEST = 10.0  # deviations, at most; see `_HeadInputs`
VERSION = "1"  # of all this: embeddings of different versions are not comparable


def embedding_length(ensemble: Ensemble) -> int:
    """How many values an embedding by this ensemble has."""
    return len(ensemble.genres) + SOUND


def predict_and_embed(ensemble: Ensemble, song: SongFeatures) -> tuple[SongPrediction, np.ndarray]:
    """A song's probabilities and its embedding [embedding_length], computed together.

    A member that cannot read the song adds nothing.
    """
    with ExitStack() as hooks:
        inputs = [_HeadInputs(one.classifier.network, hooks) for one in ensemble.checkpoints]
        prediction = ensemble.predict_song(song)
    weights = [member.weight for member in ensemble.info.members]
    return prediction, embedding(prediction.song, [one.sum for one in inputs], weights)


def embedding(
    probs: np.ndarray, members: Sequence[np.ndarray], weights: Sequence[float]
) -> np.ndarray:
    """float32 [genres + 512] of probabilities [genres] and vectors of members, [width] each.

    Only the vectors' directions matter.
    """
    sound = np.zeros(SOUND)
    for number, (vector, weight) in enumerate(zip(members, weights, strict=True)):
        direction = _unit(vector).astype(np.float32)  # as the matrix, which else is converted
        sound += np.sqrt(weight) * (direction @ _projection(number, len(vector)))
    parts = np.concatenate([_unit(np.sqrt(probs)), _unit(sound)])
    return (np.sqrt(0.5) * parts).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    scaled: np.ndarray = vector / length if length > 0 else vector
    return scaled


@functools.cache
def _projection(member: int, width: int) -> np.ndarray:
    """float32 [width, 512] of variance 1/512; independent for each member, by its number."""
    # RandomState, as its numbers stay the same in later versions of NumPy
    normal = np.random.RandomState(member).standard_normal((width, SOUND))
    return (normal / np.sqrt(SOUND)).astype(np.float32)


class _HeadInputs:
    """The sum over all that a network's `head` is given, while `hooks` is open.

    Values beyond 10 are 10: what never varied in training (a unit of an encoder that no song
    activated) can be thousands of deviations in another song, and would be all that counts.
    """

    def __init__(self, network: nn.Module, hooks: ExitStack) -> None:
        self._sum: Tensor | float = 0.0
        head = network.head
        assert isinstance(head, nn.Module)
        hooks.callback(head.register_forward_pre_hook(self._add).remove)

    def _add(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,) = inputs  # [B, width]
        self._sum = self._sum + in_double(x).clamp(-_LARGEST, _LARGEST).sum(0)

    @property
    def sum(self) -> np.ndarray:
        """float64 [width]; [0] where the network was not applied."""
        if not isinstance(self._sum, Tensor):
            return np.zeros(0)
        total: np.ndarray = self._sum.cpu().numpy()
        return total
