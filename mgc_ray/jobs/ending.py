"""What a search says at its end."""

import shlex
from pathlib import Path
from typing import Any

from mgc_ray.data.dataset import read_track_rows
from mgc_ray.ensembling.figures import also_trained_on, in_words
from mgc_ray.jobs.request import SearchRequest
from mgc_ray.terminal.command import console, count_of
from mgc_ray.training.config import full_params
from mgc_ray.tuning.display import best_table, clock, settings_in_words
from mgc_ray.tuning.records import FAILED, ranked, read_records


def print_ending(content: dict[str, Any], request: SearchRequest) -> None:
    """Leaderboard, figures, where all lies, and what to do next."""
    folder = request.folder
    records = read_records(folder / "trials")
    defaults = {family: full_params(family, {}) for family in request.families}
    shown = [record for record in ranked(records) if record.best][:10]
    console.print(f"\nLeaderboard ({folder / 'leaderboard.csv'}):", markup=False)
    console.print(best_table(shown, lambda r: settings_in_words(r.params, defaults[r.family])))
    counts = ", ".join(f"{n} {s.replace('_', ' ')}" for s, n in sorted(content["trials"].items()))
    console.print(
        f"{count_of(len(records), 'trial')} ({counts}), {count_of(content['epochs'], 'epoch')}, "
        f"{clock(content['seconds'])} {'in this last run' if content['resumed'] else 'in all'}",
        markup=False,
    )
    for record in records:
        if record.status == FAILED:
            console.print(f"  {record.trial} failed: {record.reason}", markup=False)
    ensemble = content["ensemble"]
    fold = f", fold {content['fold']}" if content["fold"] else ""
    protocol = f"protocol {content['protocol']}{fold}{', LEAKY' if content['leaky'] else ''}"
    members = ", ".join(f"{m['name']} ({m['weight']:.2f})" for m in ensemble["members"])
    console.print(f"\nEnsemble of {members}", markup=False)
    if also := also_trained_on(ensemble):
        console.print(f"its weights were also trained on {also}", markup=False)
    console.print(
        f"{ensemble['selected_on'].replace('_', ' ')} ({protocol}; selected on it, so too high): "
        f"{in_words(ensemble['validation'])}",
        markup=False,
    )
    if ensemble["test"]:
        console.print(
            f"TEST ({protocol}): {in_words(ensemble['test'])}", markup=False, style="bold"
        )
    else:
        console.print(
            "no test figure: this dataset has no test tracks, so the validation figure is all",
            markup=False,
        )
    example = _example(Path(content["dataset"]))
    again = (
        ""
        if request.dataset.tracks
        else (
            f"\n  python -m mgc_ray.search --family {' '.join(request.families)} "
            "--tracks YOUR_FOLDER    # a subfolder a genre"
        )
    )
    console.print(
        f"\nAll of it lies in {folder}, told in {folder / 'report.html'}. Next:\n"
        f"  tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}\n"
        f"  python -m mgc_ray.predict --model {shlex.quote(str(folder / 'ensemble'))} "
        f"{shlex.quote(example)}{again}",
        soft_wrap=True,
        markup=False,
    )


def _example(dataset: Path) -> str:
    """A track to try prediction with: of the test part where there is one."""
    tracks = read_track_rows(dataset)[0]
    tracks.sort(key=lambda track: (track.split != "test", track.is_added))
    path = Path(tracks[0].path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
