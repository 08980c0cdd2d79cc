"""TensorBoard: one run a trial, scalars for training and validation, the HParams tab."""

import logging
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mgc_ray.training.loop import METRIC
from mgc_ray.tuning.records import TrialRecord

# TensorBoard puts what stands before the slash into one panel
_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    METRIC: "accuracy/validation_tracks",
    "val_chunk_accuracy": "accuracy/validation_chunks",
    "val_macro_f1": "macro_f1/validation_tracks",
    "lr": "training/lr",
    "epoch_seconds": "training/epoch_seconds",
    "chunks_per_second": "training/chunks_per_second",
}


class TensorBoardWriter:
    """Writes each trial's events to TRIALS/NAME, as a Listener of the trial log."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._writers: dict[str, SummaryWriter] = {}
        logging.getLogger("tensorboard").setLevel(logging.ERROR)

    def on_start(self, record: TrialRecord) -> None:
        self._writers[record.trial] = SummaryWriter(str(self._trials / record.trial))

    def on_epoch(self, record: TrialRecord) -> None:
        writer = self._writers[record.trial]
        for name, tag in _TAGS.items():
            writer.add_scalar(tag, record.curve[-1][name], record.epochs)

    def on_end(self, record: TrialRecord) -> None:
        writer = self._writers.pop(record.trial, None)
        if writer is None:
            return
        figures = {f"best/{name}": record.best[name] for name in _TAGS if name in record.best}
        chosen: dict[str, Any] = {"family": record.family, "status": record.status} | record.params
        # add_hparams would put these into a run of their own, beside the trial's
        for summary in hparams(chosen, figures):
            writer._get_file_writer().add_summary(summary)
        for tag, value in figures.items():
            writer.add_scalar(tag, value, record.best_epoch)
        writer.close()
