"""What a search prints at its end, and `show` of it and of its trials."""

import shlex
from pathlib import Path

from rich.table import Table

from mgc_ray.data.dataset import read_dataset_tracks
from mgc_ray.ensembling.calibrate import ENOUGH_TRACKS
from mgc_ray.models import family_arguments, known_defaults
from mgc_ray.reporting.content import members_in_words
from mgc_ray.results import (
    FAILED,
    JOURNAL,
    LEADERBOARD,
    REPORT,
    RESULTS,
    EnsembleInfo,
    SearchResult,
    TrialRecord,
    in_words,
)
from mgc_ray.task import score_cell, score_heading
from mgc_ray.terminal.command import console, count_of, print_warnings, typed
from mgc_ray.tuning.display import best_table, clock, main_settings, time_limit_in_words

_SHOWN = 10


def print_summary(result: SearchResult) -> None:
    """Leaderboard, figures, where everything is, and what to do next."""
    folder, records = result.folder, result.records
    _print_leaderboard(result)
    counts = ", ".join(f"{n} {in_words(s)}" for s, n in sorted(result.trial_counts.items()))
    console.print(
        f"{count_of(len(records), 'trial')} ({counts}), {count_of(result.epochs, 'epoch')}, "
        f"{clock(result.seconds)} {'in this last run' if result.resumed else 'in total'}"
    )
    if late := time_limit_in_words(result):
        console.print(f"{late}: more by a longer --time-limit", style="yellow")
    for record in records:
        if record.status == FAILED:
            console.print(f"  {record.trial} failed: {record.reason}")
    if not result.ensemble:
        console.print(_unfinished(result), soft_wrap=True)
        return
    print_ensemble(result.ensemble)
    families = family_arguments(result.config.family)
    files = [name for name in families if name not in result.config.family]  # of your own families
    predict = f"{typed('predict')} --model {shlex.quote(_name(folder))} "
    predict += shlex.quote(_example(Path(result.dataset)))
    predict += f" --family {shlex.join(files)}" if files else ""
    predict += "".join(f" --features {shlex.quote(path)}" for path in result.feature_files)
    again = (
        ""
        if result.config.dataset.tracks
        else f"\n  {typed('search')} --family {shlex.join(families)} "
        "--tracks YOUR_FOLDER    # one subfolder per genre"
    )
    console.print(
        f"\nEverything is in {folder}; {folder / REPORT} shows it. Next:\n"
        f"  tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}\n"
        f"  {typed('show')} {shlex.quote(_name(folder))} {records[0].trial}    # settings\n"
        f"  {predict}{again}",
        soft_wrap=True,
    )


def _print_leaderboard(result: SearchResult) -> None:
    """The best trials with the settings that matter most."""
    from mgc_ray.reporting.history import importances, read_journal

    shown = [record for record in result.records if record.best][:_SHOWN]
    if not shown:
        return
    journal = read_journal(result.folder / JOURNAL)
    # the most important ones first, where enough trials say which these are
    first = {family: list(importances(trials)) or ["lr"] for family, trials in journal.items()}
    console.print(f"\nLeaderboard ({result.folder / LEADERBOARD}):")
    console.print(
        best_table(
            shown,
            result.config.metric,
            lambda record: main_settings(
                record.params, known_defaults(record.family), first.get(record.family, ["lr"])
            ),
        )
    )


def _unfinished(result: SearchResult) -> str:
    if result.failure:
        return f"the search failed: {result.failure}"
    return (
        "the search is unfinished: it runs, or was interrupted; then continue it by\n"
        f"  {typed('search')} --resume {shlex.quote(_name(result.folder))}"
    )


def _name(folder: Path) -> str:
    """How a search is given: its name, where that is enough."""
    return folder.name if folder == RESULTS / folder.name else str(folder)


def print_trial(record: TrialRecord, result: SearchResult) -> None:
    """A trial's end, settings, epochs, and how to train it again."""
    metric = record.metric
    reason = f": {record.reason}" if record.reason else ""
    console.print(
        f"{record.trial} of {result.folder}: {in_words(record.status)} after "
        f"{count_of(record.epochs, 'epoch')}, {clock(record.seconds)}{reason}",
        style="bold",
    )
    defaults = known_defaults(record.family)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "value", "default"):
        table.add_column(heading, overflow="fold")
    for name, value in record.params.items():
        changed = value != defaults.get(name)
        table.add_row(name, _text(value), _text(defaults.get(name)) if changed else "")
    console.print(table)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("epoch", "train loss", "valid loss", score_heading(metric), ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for number, epoch in enumerate(record.curve, 1):
        losses = (
            f"{epoch[name]:.3f}" if name in epoch else "" for name in ("train_loss", "val_loss")
        )
        best = "best" if number == record.best_epoch else ""
        table.add_row(str(number), *losses, score_cell(epoch, metric), best)
    console.print(table)
    params = {"max_epochs": result.config.tuning.max_epochs} | record.params
    settings = "".join(f" --set {name}={shlex.quote(str(value))}" for name, value in params.items())
    console.print(
        f"Train it again:\n  {typed('train')} --family {record.family} --dataset "
        f"{shlex.quote(result.dataset)} --seed {result.config.seed}{settings}",
        soft_wrap=True,
    )


def print_ensemble(ensemble: EnsembleInfo) -> None:
    """The members and figures of an ensemble."""
    fold = f", fold {ensemble.fold}" if ensemble.fold else ""
    protocol = f"protocol {ensemble.protocol}{fold}{', LEAKY' if ensemble.leaky else ''}"
    console.print(f"\nEnsemble of {members_in_words(ensemble)}")
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


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _example(dataset: Path) -> str:
    """A track to try prediction with: of the test part where there is one."""
    tracks, _ = read_dataset_tracks(dataset)
    tracks.sort(key=lambda track: (track.split != "test", track.added))
    path = Path(tracks[0].path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
