"""TensorBoard: one run a trial, scalars for training and validation, the HParams tab.

The HParams tab shows the columns that one summary in TRIALS itself lists, for all trials: a name
that only some trials have (it is conditional, or of one family) is an empty cell for the others.
"""

import logging
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
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
    """Writes each trial's events to TRIALS/NAME, as a Listener of the trial log.

    `types`: all names that the families' spaces can suggest, with the type of their values.
    """

    def __init__(self, trials: Path, types: dict[str, type]) -> None:
        self._trials = trials
        self._writers: dict[str, SummaryWriter] = {}
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        if not list(trials.glob("events.out.tfevents.*")):  # a resumed search has it already
            with SummaryWriter(str(trials)) as writer:
                writer._get_file_writer().add_summary(_columns(types))

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
        # add_hparams would put these into a run of their own, beside the trial's; the first of the
        # three lists columns from this trial alone, which _columns does for all
        _, start, end = hparams(chosen, figures)
        for part in (start, end):
            writer._get_file_writer().add_summary(part)
        for tag, value in figures.items():
            writer.add_scalar(tag, value, record.best_epoch)
        writer.close()


def _columns(types: dict[str, type]) -> Summary:
    """The summary that lists the HParams tab's columns: parameters, then figures."""
    kinds = {
        bool: api_pb2.DATA_TYPE_BOOL,
        int: api_pb2.DATA_TYPE_FLOAT64,
        float: api_pb2.DATA_TYPE_FLOAT64,
    }
    parameters = [
        api_pb2.HParamInfo(name=name, type=kinds.get(kind, api_pb2.DATA_TYPE_STRING))
        for name, kind in ({"family": str, "status": str} | types).items()
    ]
    figures = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"best/{name}"), display_name=name)
        for name in _TAGS
    ]
    # tensorboard.plugins.hparams.summary would do this, but needs TensorFlow
    content = plugin_data_pb2.HParamsPluginData(
        experiment=api_pb2.Experiment(hparam_infos=parameters, metric_infos=figures),
        version=metadata.PLUGIN_DATA_VERSION,
    )
    plugin = SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
    )
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])
