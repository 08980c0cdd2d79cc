"""What a report tells of a search, read from its folder; nothing is computed twice."""

import csv
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mgc_ray import RequestError
from mgc_ray.data.dataset import read_track_rows
from mgc_ray.data.files import read_json
from mgc_ray.ensembling.calibration import temper
from mgc_ray.ensembling.outcomes import ENSEMBLE
from mgc_ray.training.config import full_params
from mgc_ray.tuning.display import settings_in_words
from mgc_ray.tuning.history import ends, importances, read_journal
from mgc_ray.tuning.records import JOURNAL, TrialRecord, ranked, read_records


@dataclass(frozen=True)
class Judged:
    """Predictions of the ensemble: track_id, group [tracks], true [tracks], probs [tracks, genres].

    `part`: test, or what the ensemble was selected on where there is no test part.
    """

    part: str
    track_id: list[str]
    group: list[str]
    true: np.ndarray
    probs: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        found: np.ndarray = self.probs.argmax(1)
        return found


class Search:
    """One search's folder, finished or not. Raises RequestError for what is no search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content: dict[str, Any] = read_json(
            folder / "search.json",
            "search",
            "name folders that mgc_ray.search wrote (results/NAME)",
        )
        if "request" not in self.content:
            raise RequestError(
                f"{folder} is no search: its search.json has no request; name folders that "
                "mgc_ray.search wrote (results/NAME)"
            )
        self.name = folder.resolve().name
        self.finished = bool(self.content.get("finished"))

    @cached_property
    def records(self) -> list[TrialRecord]:
        """Trials that have ended, best first."""
        return ranked(read_records(self.folder / "trials"))

    @property
    def made_up(self) -> bool:
        """Whether its tracks are the built-in corpus, so that no figure says anything of music."""
        return not (self.content["request"].get("dataset") or {}).get("tracks", "?")

    def settings(self, record: TrialRecord) -> str:
        """What differs from the defaults; all settings of a family that is not at hand."""
        if record.family not in self._defaults:
            try:
                self._defaults[record.family] = full_params(record.family, {})
            except RequestError:
                self._defaults[record.family] = {}
        return settings_in_words(record.params, self._defaults[record.family])

    @cached_property
    def _defaults(self) -> dict[str, dict[str, Any]]:
        return {}

    @cached_property
    def _journal(self) -> dict[str, Any]:
        return read_journal(self.folder / JOURNAL)

    @cached_property
    def ends(self) -> dict[str, float]:
        """Seconds from the first start to the end of each trial, by its name."""
        return ends(self._journal)

    @cached_property
    def importances(self) -> dict[str, dict[str, float]]:
        return importances(self._journal)

    @property
    def ensemble(self) -> dict[str, Any] | None:
        return self.content.get("ensemble") if self.finished else None

    @property
    def figures(self) -> dict[str, Any] | None:
        """The ensemble's figures on the test part, or on what it was selected on."""
        ensemble = self.ensemble
        return (ensemble["test"] or ensemble["validation"]) if ensemble else None

    @property
    def protocol(self) -> str:
        """In words, with fold and warning."""
        fold = f", fold {self.content['fold']}" if self.content.get("fold") else ""
        leaky = ", LEAKY: chunks of one song on both sides" if self.content.get("leaky") else ""
        return f"{self.content.get('protocol', 'not known yet')}{fold}{leaky}"

    @cached_property
    def judged(self) -> Judged | None:
        """Calibrated as the saved ensemble is."""
        ensemble = self.ensemble
        path = self.folder / ENSEMBLE / "predictions.csv"
        if not ensemble or not path.exists():
            return None
        part = "test" if ensemble["test"] else ensemble["selected_on"]
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            genres = next(reader)[5:]
            rows = [row for row in reader if row[:2] == [ENSEMBLE, part]]
        probs = np.array([row[5:] for row in rows], float)
        return Judged(
            part,
            [row[2] for row in rows],
            [row[3] for row in rows],
            np.array([genres.index(row[4]) for row in rows], int),
            temper(probs, ensemble["temperature"]),
        )

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Where the dataset's tracks lie, by track id; {} where the dataset is not at hand."""
        try:
            tracks, _ = read_track_rows(Path(self.content["dataset"]))
        except (RequestError, KeyError, TypeError):
            return {}
        return {track.track_id: Path(track.path) for track in tracks}

    @cached_property
    def skipped(self) -> list[tuple[str, str]]:
        """(file, reason) of what was left out of the dataset."""
        try:
            path = Path(self.content["dataset"]) / "skipped.csv"
            with path.open(newline="", encoding="utf-8") as file:
                return [(row["path"], row["reason"]) for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError):
            return []

    @cached_property
    def cost(self) -> list[tuple[str, str]]:
        """(what, how much), in words."""
        counts = Counter(record.status.replace("_", " ") for record in self.records)
        seconds = sum(record.seconds for record in self.records)
        refit = self._refit_seconds
        share = self.content.get("resources") or {}
        words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        told = [
            ("trials", f"{len(self.records)} ({words})"),
            ("epochs", f"{sum(record.epochs for record in self.records)}"),
            ("hours of all trials added up", f"{seconds / 3600:.2f}"),
        ]
        if refit:
            told.append(("hours of refitting, added up", f"{refit / 3600:.2f}"))
        for name, unit in (("cpus_per_trial", "CPU"), ("gpus_per_trial", "GPU")):
            if name in share:
                told.append((f"{unit} hours", f"{(seconds + refit) * share[name] / 3600:.2f}"))
        if self.finished:
            last = " of the last run" if self.content.get("resumed") else ""
            told.append((f"minutes{last}, end to end", f"{self.content['seconds'] / 60:.1f}"))
        return told

    @property
    def _refit_seconds(self) -> float:
        ensemble = self.ensemble
        if not ensemble or ensemble["selected_on"] != "out_of_fold":
            return 0.0
        families = [m for name, m in ensemble["models"].items() if name != ENSEMBLE]
        return float(sum(model["seconds"] for model in families))
