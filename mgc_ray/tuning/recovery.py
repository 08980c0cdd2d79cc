"""What a search finds of itself when it continues: only what is sound counts as done.

A driver that was killed leaves whole files, but a loss of power may also leave empty ones.
"""

from pathlib import Path

from mgc_ray.data.files import delete, is_damaged
from mgc_ray.data.storage import SharedFolder
from mgc_ray.results import LEADERBOARD, TRIAL, TrialRecord, read_records, write_leaderboard
from mgc_ray.terminal.command import console
from mgc_ray.training.checkpoint import is_checkpoint

CHECKPOINT = "checkpoint"


def ended_trials(search: SharedFolder) -> list[TrialRecord]:
    """The records of all trials that have ended, by number.

    Of a trial whose record or weights are damaged all is fetched again from the storage, or, where
    that has nothing better, deleted: it has not ended, and runs again.
    """
    trials = search.subfolder("trials")
    lost = []
    for folder in sorted(trials.folder.glob("*")):
        if _is_damaged(folder):
            delete(folder)
            trials.fetch(folder.name)
            if _is_damaged(folder) or not folder.exists():
                trials.delete(folder.name)
                lost.append(folder.name)
        elif (folder / TRIAL).exists() and not is_checkpoint(folder / CHECKPOINT):
            delete(folder / CHECKPOINT)  # the driver died while it deleted them
    if lost:
        console.print(
            f"{', '.join(lost)}: files of these trials are damaged, as after a loss of power, so "
            "they run again",
            style="yellow",
        )
    search.send_missing("trials")  # what an earlier driver could not send
    records = read_records(trials.folder)
    if records:  # the driver may have died between the last record and the leaderboard
        write_leaderboard(search.folder / LEADERBOARD, records)
    return records


def _is_damaged(trial: Path) -> bool:
    """Whether files of an ended trial are there, but not what was written."""
    weights = trial / CHECKPOINT
    there = [(weights / name).exists() for name in ("config.json", "model.safetensors")]
    return is_damaged(trial / TRIAL) or (
        (trial / TRIAL).exists() and all(there) and not is_checkpoint(weights)
    )
