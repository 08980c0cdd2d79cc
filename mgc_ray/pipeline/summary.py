"""What a search prints at its end."""

import shlex
from pathlib import Path

from mgc_ray.data.dataset import read_dataset_tracks
from mgc_ray.ensembling.calibrate import ENOUGH_TRACKS
from mgc_ray.models import family_arguments, full_params
from mgc_ray.results import (
    FAILED,
    LEADERBOARD,
    REPORT,
    EnsembleInfo,
    SearchResult,
    in_words,
)
from mgc_ray.terminal.command import console, count_of, print_warnings
from mgc_ray.tuning.display import best_table, changed_settings, clock

_SHOWN = 10


def print_summary(result: SearchResult) -> None:
    """Leaderboard, figures, where everything is, and what to do next."""
    folder, records = result.folder, result.records
    defaults = {family: full_params(family, {}) for family in result.config.family}
    shown = [record for record in records if record.best][:_SHOWN]
    console.print(f"\nLeaderboard ({folder / LEADERBOARD}):")
    console.print(
        best_table(
            shown,
            result.config.metric,
            lambda record: changed_settings(record.params, defaults[record.family]),
        )
    )
    counts = ", ".join(f"{n} {in_words(s)}" for s, n in sorted(result.trial_counts.items()))
    console.print(
        f"{count_of(len(records), 'trial')} ({counts}), {count_of(result.epochs, 'epoch')}, "
        f"{clock(result.seconds)} {'in this last run' if result.resumed else 'in total'}"
    )
    for record in records:
        if record.status == FAILED:
            console.print(f"  {record.trial} failed: {record.reason}")
    assert result.ensemble
    print_ensemble(result.ensemble)
    families = family_arguments(result.config.family)
    files = [name for name in families if name not in result.config.family]  # of your own families
    predict = f"python -m mgc_ray.predict --model {shlex.quote(str(folder / 'ensemble'))} "
    predict += shlex.quote(_example(Path(result.dataset)))
    predict += f" --family {shlex.join(files)}" if files else ""
    predict += "".join(f" --features {shlex.quote(path)}" for path in result.feature_files)
    again = (
        ""
        if result.config.dataset.tracks
        else f"\n  python -m mgc_ray.search --family {shlex.join(families)} "
        "--tracks YOUR_FOLDER    # one subfolder per genre"
    )
    console.print(
        f"\nEverything is in {folder}; {folder / REPORT} shows it. Next:\n"
        f"  tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}\n"
        f"  {predict}{again}",
        soft_wrap=True,
    )


def print_ensemble(ensemble: EnsembleInfo) -> None:
    """The members and figures of an ensemble."""
    fold = f", fold {ensemble.fold}" if ensemble.fold else ""
    protocol = f"protocol {ensemble.protocol}{fold}{', LEAKY' if ensemble.leaky else ''}"
    members = ", ".join(f"{member.name} ({member.weight:.2f})" for member in ensemble.members)
    console.print(f"\nEnsemble of {members}")
    if also := ensemble.also_trained_on:
        console.print(f"its weights were also trained on {also}")
    console.print(
        f"{in_words(ensemble.selected_on)} ({protocol}; selected on it, so too high): "
        f"{ensemble.held_out}"
    )
    few = ensemble.held_out.tracks < ENOUGH_TRACKS
    console.print(
        f"probabilities calibrated on these {count_of(ensemble.held_out.tracks, 'track')}, "
        f"temperature {ensemble.temperature:.2f}"
        f"{': too few to make them surer' if few else ''}"
    )
    print_warnings(ensemble.all_warnings)
    if ensemble.test:
        console.print(f"TEST ({protocol}): {ensemble.test}", style="bold")
    else:
        console.print(
            "no test figure: this dataset has no test tracks, so there is only the figure above"
        )


def _example(dataset: Path) -> str:
    """A track to try prediction with: of the test part where there is one."""
    tracks, _ = read_dataset_tracks(dataset)
    tracks.sort(key=lambda track: (track.split != "test", track.added))
    path = Path(tracks[0].path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
