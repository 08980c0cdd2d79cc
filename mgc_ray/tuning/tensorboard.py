"""TensorBoard: one folder per search, one run per trial.

The columns of the HParams tab are listed once, in a summary in the folder itself, for all trials: a
setting that only some trials have (it is conditional, or of one family) is an empty cell for the
others. The end of a trial adds what only its best epoch has: the confusion matrix as a picture and
one precision-recall curve per genre, both for the validation tracks.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mgc_ray.data.untrusted import read_arrays
from mgc_ray.evaluation.metrics import confusion_matrix
from mgc_ray.results import TrialRecord
from mgc_ray.settings import Params
from mgc_ray.tuning.pictures import confusion_picture, spectrogram_picture
from mgc_ray.tuning.tracking import Callback
from mgc_ray.tuning.trial import EXAMPLES, VALIDATION

FOLDER = "tensorboard"  # in a search's folder
# TensorBoard shows tags with the same part before the slash in one panel
_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_track_accuracy": "accuracy/validation_tracks",
    "val_chunk_accuracy": "accuracy/validation_chunks",
    "val_macro_f1": "macro_f1/validation_tracks",
    "val_log_loss": "loss/validation_tracks",
    "lr": "training/lr",
    "gradient_norm": "training/gradient_norm",
    "epoch_seconds": "speed/epoch_seconds",
    "chunks_per_second": "speed/chunks_per_second",
    "memory_mib": "speed/memory_mib",
}
_LONGEST_SIGNATURE = 60  # characters


class TensorBoardWriter(Callback):
    """Writes each trial's events to SEARCH/tensorboard/RUN, as a Callback of the trial log.

    `types`: all names that the families' spaces can suggest, with the type of their values.
    `defaults`: all settings of each family. `earlier` trials are written where they are missing,
    because another machine ran them.
    """

    def __init__(
        self,
        search: Path,
        types: dict[str, type],
        defaults: dict[str, Params],
        genres: Sequence[str],
        earlier: Sequence[TrialRecord] = (),
    ) -> None:
        self._trials, self._folder = search / "trials", search / FOLDER
        self._defaults, self._genres = defaults, genres
        self._writers: dict[str, SummaryWriter] = {}
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        if not list(self._folder.glob("events.out.tfevents.*")):  # a resumed search has it already
            with SummaryWriter(str(self._folder)) as writer:
                writer._get_file_writer().add_summary(_columns(types))
        for record in earlier:
            if not (self._folder / self._run(record)).exists():
                self._write_again(record)

    def on_trial_start(self, record: TrialRecord) -> None:
        folder = self._folder / self._run(record)
        if folder.exists():  # it runs again, and reports all epochs again
            shutil.rmtree(folder)
        writer = SummaryWriter(str(folder))
        writer.add_text("configuration", _in_markdown(record, self._defaults[record.family]))
        self._writers[record.trial] = writer

    def on_epoch(self, record: TrialRecord) -> None:
        self._write_epoch(self._writers[record.trial], record.curve[-1], record.epochs)

    def on_trial_end(self, record: TrialRecord) -> None:
        writer = self._writers.pop(record.trial, None)
        if writer is None:
            return
        self._write_pictures(writer, record)
        figures = {f"best/{name}": record.best[name] for name in _TAGS if name in record.best}
        chosen: Params = {"family": record.family, "status": record.status} | record.params
        # add_hparams would write these into another run beside the trial's; the first of the three
        # lists the columns of this trial alone, which _columns does for all
        _, start, end = hparams(chosen, figures)
        for part in (start, end):
            writer._get_file_writer().add_summary(part)
        for tag, value in figures.items():
            writer.add_scalar(tag, value, record.best_epoch)
        writer.close()

    def _run(self, record: TrialRecord) -> str:
        return run_name(record, self._defaults[record.family])

    def _write_epoch(self, writer: SummaryWriter, metrics: dict[str, float], number: int) -> None:
        for name, tag in _TAGS.items():
            if name in metrics:
                writer.add_scalar(tag, metrics[name], number)

    def _write_pictures(self, writer: SummaryWriter, record: TrialRecord) -> None:
        folder = self._trials / record.trial
        if (folder / EXAMPLES).exists():
            picture = spectrogram_picture(np.load(folder / EXAMPLES))
            writer.add_image("augmented", picture, 1, dataformats="HWC")
        if not (folder / VALIDATION).exists() or not record.best:
            return
        saved = read_arrays(folder / VALIDATION)
        probs, true = saved["probs"].astype(np.float32), saved["true"].astype(int)
        matrix = confusion_matrix(probs.argmax(1), true, len(self._genres))
        picture = confusion_picture(matrix, self._genres)
        writer.add_image("confusion", picture, record.best_epoch, dataformats="HWC")
        for number, genre in enumerate(self._genres):
            tag = f"precision_recall/{genre}"
            writer.add_pr_curve(tag, true == number, probs[:, number], record.best_epoch)

    def _write_again(self, record: TrialRecord) -> None:
        self.on_trial_start(record)
        for number, metrics in enumerate(record.curve, 1):
            self._write_epoch(self._writers[record.trial], metrics, number)
        self.on_trial_end(record)


def run_name(record: TrialRecord, defaults: Params) -> str:
    """Family, number and the first settings that are not at the family's defaults.

    E.g. `gru-0003_dropout=0.37_hidden=64_lr=0.0022`: a folder's name, so without slashes.
    """
    name = record.trial
    for key, value in record.params.items():
        if value == defaults.get(key):
            continue
        spoken = f"{value:.2g}" if isinstance(value, float) else str(value)
        part = f"_{key}={spoken}".replace("/", "-").replace(" ", "-")
        if len(name) + len(part) <= _LONGEST_SIGNATURE:
            name += part
    return name


def _in_markdown(record: TrialRecord, defaults: Params) -> str:
    """All settings of a trial as a table; what was suggested is bold."""
    rows = ["| setting | value |", "|---|---|", f"| family | {record.family} |"]
    for name, value in (defaults | record.params).items():
        rows.append(f"| {name} | {f'**{value}**' if name in record.params else value} |")
    return "\n".join(rows)


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
        for name in sorted(_TAGS, key=lambda name: name != "val_track_accuracy")  # first are shown
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
