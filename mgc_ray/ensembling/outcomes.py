"""Finished searches as outcomes: what each of their models predicted, and how it was made."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.files import read_json
from mgc_ray.ensembling.statistics import Judged, Kind, Outcome

ENSEMBLE = "ensemble"  # model, and folder; gather.py's, whose import would take 2 s for torch
_ANEW = "search again under another --name"
# of what a search was asked for: where it ran and how fast, and what rows show by themselves
_NO_SETTINGS = {
    *("name", "results", "memory", "concurrent", "gpus_per_trial", "keep", "settings", "dataset"),
    *("tracks", "protocol", "seed", "split_seed", "fold", "families", "trial_timeout", "storage"),
}


def outcomes_of(search: Path) -> tuple[list[str], list[Outcome]]:
    """A search's genres, and its models with what they predicted."""
    content = read_json(
        search / "search.json",
        "search",
        "name folders that mgc_ray.search wrote (results/NAME), or mgc_ray.compare --out",
    )
    if not content.get("finished"):
        raise RequestError(
            f"only finished searches can be compared, but {search} has not come to its end: go on "
            f"with it by python -m mgc_ray.search --resume {search.name} --results "
            f"{search.parent}, or leave it out"
        )
    ensemble = read_json(search / ENSEMBLE / "ensemble.json", "ensemble with figures", _ANEW)
    try:
        return _read(search, content, ensemble)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(
            f"{search} was written by another version of this program ({error!r}): {_ANEW}"
        ) from None


def _read(
    search: Path, content: dict[str, Any], ensemble: dict[str, Any]
) -> tuple[list[str], list[Outcome]]:
    request, models = content["request"], ensemble["models"]
    families = tuple(sorted(request["families"]))
    fold, folds = _fold(content)
    predictions = _predictions(search / ENSEMBLE / "predictions.csv", ensemble["genres"])
    outcomes = []
    for name, model in models.items():
        if name == ENSEMBLE and len(families) == 1:  # the same model as that family's own
            continue
        part = "test" if model.get("test") else ensemble["selected_on"]
        kind = Kind(
            model=name,
            families=families,
            protocol=ensemble["protocol"],
            leaky=ensemble["leaky"],
            folds=folds,
            refitted=ensemble["selected_on"] == "out_of_fold",
            trained_on=_trained_on(search, name, ensemble),
            part=part,
            tracks=_in_short(ensemble["source"]),
            settings=_settings(request),
        )
        outcomes.append(
            Outcome(
                search=str(search),
                kind=kind,
                seed=request["settings"]["seed"],
                split_seed=ensemble["split_seed"],
                fold=fold,
                parameters=model["parameters"],
                seconds=model["seconds"],
                judged=_judged(search, name, model[part], predictions.get((name, part), [])),
            )
        )
    return list(ensemble["genres"]), outcomes


def _fold(content: dict[str, Any]) -> tuple[int | None, int | None]:
    """Which fold of how many is the test part, from `2/5` in search.json; None without folds."""
    request = content["request"]
    for place in (content, request, request.get("dataset", {})):
        if place.get("fold"):
            fold, folds = place["fold"].split("/")
            return int(fold), int(folds)
    return None, None


def _settings(request: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What was asked for, in words, without what is no choice (see _NO_SETTINGS)."""
    everything = request | request["settings"] | request.get("dataset", {})
    for name in ("more_tracks", "without", "init_from"):
        if everything.get(name):
            everything[name] = _in_short(everything[name])
    return tuple(
        (
            "--set" if name == "fixed" else name.replace("_", " "),
            ", ".join(map(str, value)) if isinstance(value, list) else str(value),
        )
        for name, value in sorted(everything.items())
        if name not in _NO_SETTINGS and value  # what is not asked for may be named or not
    )


def _trained_on(search: Path, model: str, ensemble: dict[str, Any]) -> tuple[str, ...]:
    """What the weights were trained on beside the dataset itself, e.g. `other_music (tags)`.

    The ensemble names what any of its candidates was trained on, a family's trials their own.
    """
    trials = sorted((search / "trials").glob(f"{model}-[0-9]*/checkpoint/config.json"))
    content = read_json(trials[0], "checkpoint", _ANEW) if trials else ensemble
    own = (ensemble["source"], ensemble["protocol"], "genres")
    return tuple(
        f"{_in_short(one['source'])} ({one['task']})"
        for one in content["trained_on"]
        if (one["source"], one["protocol"], one["task"]) != own
    )


def _in_short(source: str) -> str:
    """A folder's name, or a table's with its folder's, whose place is another elsewhere."""
    path = Path(source)
    if path.name == "tracks.csv":
        return path.parent.name
    if path.suffix == ".csv":
        return "/".join(path.with_suffix("").parts[-2:])
    return path.name


def _predictions(path: Path, genres: Sequence[str]) -> dict[tuple[str, str], list[list[str]]]:
    """Rows of predictions.csv without the columns model and part, by these two."""
    rows: dict[tuple[str, str], list[list[str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != ["model", "part", "track_id", "group", "genre", *genres]:
                raise RequestError(
                    f"{path} must have the columns model, part, track_id, group, genre and one of "
                    f"each genre, but it has {', '.join(header) or 'none'}: {_ANEW}"
                )
            for row in reader:
                rows.setdefault((row[0], row[1]), []).append(row[2:])
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}): {_ANEW}") from None
    return rows


def _judged(
    search: Path, model: str, figures: dict[str, Any], rows: Sequence[Sequence[str]]
) -> Judged:
    """Of one model's rows track_id, group, genre and a probability a genre."""
    if len(rows) != figures["tracks"]:
        raise RequestError(
            f"{search / ENSEMBLE / 'predictions.csv'} must have the {figures['tracks']} tracks "
            f"that the figures of {model} are of, but it has {len(rows)}: {_ANEW}"
        )
    genres = figures["genres"]
    return Judged(
        track_id=np.array([row[0] for row in rows]),
        group=np.array([row[1] for row in rows]),
        true=np.array([genres.index(row[2]) for row in rows]),
        predicted=np.array([row[3:] for row in rows], float).argmax(1),
        chunk_accuracy=figures["chunk_accuracy"],
        chunks=figures["chunks"],
    )
