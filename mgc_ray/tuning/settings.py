"""What is asked of the trials of a search."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TuneSettings:
    """How many trials, how long and where."""

    trials: int = 20
    max_epochs: int = 30
    seed: int = 0
    concurrent: int | None = None  # None: as many as the cluster has CPUs or GPUs for
    gpus_per_trial: float | None = None  # None: 1 where the cluster has GPUs
    keep: int = 20  # trials whose weights are kept
    # ASHA's rungs are at 1, 3, 9 and 27 epochs. Chosen on a table of 240 real outcomes, 50 seeds
    # each (results/benchmarks.md): with rungs from 3 on the best accuracy over 400 epochs is 0.5 to
    # 0.6 points lower, from 5 on 1.1 to 1.3; factors of 2 to 4 differ by less than their intervals.
    grace_period: int = 1  # epochs before ASHA may stop a trial
    reduction_factor: int = 3  # of the trials at a rung, ASHA lets one in so many go on
    time_limit: float | None = None  # seconds; then running trials are stopped and no more start
    trial_timeout: float | None = None  # seconds; a trial that takes longer is ended as failed
    fixed: tuple[str, ...] = ()  # "NAME=VALUE": settings that all trials have, of families with it
