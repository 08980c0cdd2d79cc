"""What a dataset is asked to be: the settings that all who make one share, and their rules.

Some settings are of audio alone and some of `.npy` spectrograms alone; one given for the wrong kind
of table is refused, as it would otherwise be passed over in silence.
"""

from dataclasses import dataclass, replace
from typing import Any

from mgc_ray import RequestError
from mgc_ray.data.genre_rules import GENRE_RULES
from mgc_ray.data.more_tracks import leave_out_artists, read_more_tracks
from mgc_ray.data.spectrogram import (
    GTZAN_ARRAYS,
    ArrayRecipe,
    AstFbank,
    BandGroups,
    LogMel,
    audio_features,
)
from mgc_ray.data.split import check_table, parse_fold, with_published_facts
from mgc_ray.data.tracks import TrackTable, read_tracks

ARRAY_RECIPES = {"gtzan": GTZAN_ARRAYS}
AST_FEATURES = "ast"  # what an Audio Spectrogram Transformer expects
CHUNKS_PER_ARRAY = 10  # the baseline's ten pieces of a track


@dataclass(frozen=True)
class DatasetRequest:
    """What a dataset is asked to be: the same request of the same files gives the same dataset.

    Plain values only, so that `asdict` is JSON; `request_from_json` takes it back.
    """

    tracks: str  # folder or CSV
    protocol: str = "grouped"
    split_seed: int = 0
    fold: str = ""  # "2/5", under cross-validation alone
    features: tuple[str, ...] = ("log_mel",)  # groups of bands, of audio; or "ast" alone
    ast_size: tuple[int, int] | None = None  # bands and frames that a transformer expects, for it
    chunk_seconds: float | None = None  # of audio; None: the baseline's 66,000 samples
    chunks_per_track: int | None = None  # of arrays, at the most usual size; None: ten
    array_recipe: str = ""  # how arrays were made from audio, a name in ARRAY_RECIPES
    synthetic: int = 0  # generated tracks a genre that are added to the training part
    more_tracks: str = ""  # folder or CSV of tracks that are added to it
    without: str = ""  # CSV with a column `artist`: music by these artists is left out

    @property
    def labelled(self) -> bool:
        """Whether tracks have genres to be learnt."""
        return self.protocol != "unlabelled"

    @property
    def recipe(self) -> ArrayRecipe | None:
        return ARRAY_RECIPES[self.array_recipe] if self.array_recipe else None

    @property
    def audio_features(self) -> LogMel | BandGroups | AstFbank:
        """The features of audio that are asked for; RequestError where there are none such."""
        if AST_FEATURES in self.features:
            if len(self.features) > 1 or self.chunk_seconds or not self.ast_size:
                raise RequestError(
                    f"--features {AST_FEATURES} needs --init-from MODEL, whose features they are, "
                    "and stands alone: leave out other features and --chunk-seconds"
                )
            return AstFbank(*self.ast_size)
        return audio_features(self.features, self.chunk_seconds)


def request_from_json(content: dict[str, Any]) -> DatasetRequest:
    """What `asdict` made of a request; KeyError or TypeError where another version did."""
    size = content["ast_size"]
    given = {"features": tuple(content["features"]), "ast_size": tuple(size) if size else None}
    return DatasetRequest(**content | given)


def read_table(request: DatasetRequest) -> TrackTable:
    """The request's tracks, or RequestError for what no content of their files could make right."""
    check_request(request)
    table = read_tracks(request.tracks, request.labelled)
    if request.without:
        table = leave_out_artists(table, request.without)
    check_table(table, request.protocol, request.fold)
    _check_kind(request, table)
    _check_synthetic(request, table)
    return table


def read_more(request: DatasetRequest, table: TrackTable) -> TrackTable | None:
    """The tracks that are to be added to the training part of `table`, if any are asked for."""
    if not request.more_tracks:
        return None
    if request.protocol == "fault-filtered":  # whose artists the table need not name
        table = replace(table, tracks=with_published_facts(table.tracks)[0])
    return read_more_tracks(request.more_tracks, table)


def check_request(request: DatasetRequest) -> None:
    """Refuse settings that do not go together, whatever the tracks are."""
    if request.protocol == "cross-validation":
        parse_fold(request.fold)
    elif request.fold:
        raise RequestError(
            f"--fold {request.fold} names a part of --protocol cross-validation, but the protocol "
            f"is {request.protocol}: leave it out, or add --protocol cross-validation"
        )
    if request.chunks_per_track is not None and request.chunks_per_track < 1:
        raise RequestError(
            f"--chunks-per-track must be 1 or more, but it is {request.chunks_per_track}: give 1 "
            "for whole arrays"
        )
    if request.synthetic < 0:
        raise RequestError(
            f"--synthetic must be 0 or more, but it is {request.synthetic}: give 0 for none"
        )
    if request.array_recipe not in ("", *ARRAY_RECIPES):
        raise RequestError(
            f"--array-recipe must be one of {', '.join(ARRAY_RECIPES)}, not "
            f"{request.array_recipe!r}: leave it out for arrays that were made otherwise"
        )
    if request.synthetic and not request.labelled:
        raise RequestError(
            f"--synthetic {request.synthetic} adds tracks of known genres, but --protocol "
            "unlabelled reads no genres: leave it out"
        )
    if request.more_tracks and not request.labelled:
        raise RequestError(
            f"--more-tracks {request.more_tracks} adds tracks of known genres, but --protocol "
            "unlabelled reads no genres: put them into --tracks"
        )
    _ = request.audio_features  # refuses what cannot be computed


def _check_kind(request: DatasetRequest, table: TrackTable) -> None:
    """Refuse settings of audio for arrays, and the other way round."""
    arrays = table.tracks[0].is_array
    wrong_for_arrays = [  # (whether it is given, what it is, remedy)
        (
            request.features != DatasetRequest.features,
            f"--features {' '.join(request.features)} is computed from audio",
            "leave it out",
        ),
        (
            request.chunk_seconds is not None,
            f"--chunk-seconds {request.chunk_seconds} cuts audio",
            "cut them by --chunks-per-track N",
        ),
        (
            request.synthetic > 0 and not request.array_recipe,
            f"--synthetic {request.synthetic} makes audio",
            f"name how they were made (--array-recipe {', '.join(ARRAY_RECIPES)}), or leave it out",
        ),
    ]
    wrong_for_audio = [
        (
            request.chunks_per_track is not None,
            f"--chunks-per-track {request.chunks_per_track} cuts .npy spectrograms",
            "cut it by --chunk-seconds S",
        ),
        (
            bool(request.array_recipe),
            f"--array-recipe {request.array_recipe} tells how .npy spectrograms were made",
            "leave it out",
        ),
    ]
    for given, what, remedy in wrong_for_arrays if arrays else wrong_for_audio:
        if given:
            kind = ".npy spectrograms" if arrays else "audio"
            raise RequestError(f"{what}, but the tracks are {kind}: {remedy}")


def _check_synthetic(request: DatasetRequest, table: TrackTable) -> None:
    unknown = sorted(set(table.genres) - set(GENRE_RULES))
    if request.synthetic and unknown:
        raise RequestError(
            f"--synthetic makes music of the genres {', '.join(sorted(GENRE_RULES))}, but the "
            f"table has {', '.join(unknown)}: name its genres so where they are the same, or leave "
            "--synthetic out"
        )
