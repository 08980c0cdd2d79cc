"""mgc_ray: distributed hyperparameter search for music genre classification.

Every file in this folder is a command (`python -m mgc_ray.NAME`), every folder is a room:
data (music -> dataset), models (one file a family), training (plain PyTorch), tuning (Ray Tune and
Optuna), ensembling (best trials -> one tested ensemble), reporting (a search as a page), jobs (a
dataset, a search from end to end), terminal (what commands share).
"""

__version__ = "0.1.0"


class RequestError(ValueError):
    """What was asked for cannot be done; the message states rule, value and remedy.

    Commands print it as one line and end with status 2: it never is a fault of the program.
    """
