"""What is known of each trial of a search, and the leaderboard made of it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mgc_ray.data.files import read_json, write_csv, write_json
from mgc_ray.training.metrics import METRIC

RUNNING, COMPLETED, STOPPED_EARLY, FAILED = "running", "completed", "stopped_early", "failed"
JOURNAL = "study.journal"  # Optuna's study, in a search's folder
LEADERBOARD_COLUMNS = (
    "trial",
    "family",
    "status",
    "epochs",
    "val_track_accuracy",
    "val_chunk_accuracy",
    "val_macro_f1",
    "seconds",
    "reason",  # why it ended, where it failed
)


@dataclass
class TrialRecord:
    """One trial: its settings, how it went and why it ended.

    `curve` holds one dictionary of metrics an epoch; `best_epoch` counts from 1, 0 before any.
    """

    trial: str  # family and number, e.g. gru-0003
    family: str
    params: dict[str, Any]
    status: str = RUNNING
    reason: str = ""
    seconds: float = 0.0
    node: str = ""  # address of the one it ended on
    best_epoch: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        return len(self.curve)

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the best epoch, {} before the first."""
        return self.curve[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def accuracy(self) -> float:
        """Validation track accuracy of the best epoch, -1 before the first."""
        return self.best.get(METRIC, -1.0)

    @property
    def ended(self) -> bool:
        return self.status != RUNNING

    def write(self, folder: Path) -> None:
        """Write FOLDER/trial.json."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "trial.json", asdict(self))


def read_records(trials: Path) -> list[TrialRecord]:
    """The records of all ended trials under a search's folder `trials`, by number."""
    remedy = "delete the trial's folder"
    return [
        TrialRecord(**read_json(path, "trial", remedy))
        for path in sorted(trials.glob("*/trial.json"), key=lambda p: trial_number(p.parent.name))
    ]


def trial_number(name: str) -> int:
    """7 of gru-0007."""
    return int(name.rsplit("-", 1)[1])


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Best first; a tie goes to the lower validation loss, then to the earlier trial.

    A failed trial that had good epochs before stands where these put it, but after all others:
    what diverged is nothing to build on.
    """
    return sorted(
        records,
        key=lambda r: (
            r.status == FAILED,
            -r.accuracy,
            r.best.get("val_loss", float("inf")),
            trial_number(r.trial),
        ),
    )


def write_leaderboard(path: Path, records: Sequence[TrialRecord]) -> None:
    """Write a row a trial, best first; parameters behind the fixed columns, empty where absent."""
    names = sorted({name for record in records for name in record.params})
    rows = []
    for record in ranked(records):
        figures = [
            f"{record.best[name]:.6f}" if record.best else "" for name in LEADERBOARD_COLUMNS[4:7]
        ]
        rows.append(
            [record.trial, record.family, record.status, record.epochs]
            + [*figures, f"{record.seconds:.2f}", record.reason]
            + [record.params.get(name, "") for name in names]
        )
    write_csv(path, [*LEADERBOARD_COLUMNS, *names], rows)
