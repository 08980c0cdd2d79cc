"""One ensemble of the best trials of several searches."""

from collections.abc import Sequence
from dataclasses import replace

from mgc_ray import RequestError
from mgc_ray.config import EnsembleCommandConfig
from mgc_ray.data.dataset import DatasetInfo, read_info
from mgc_ray.ensembling.build import (
    build_ensemble,
    candidates_of,
    out_of_fold,
    test_ensemble,
    validation,
)
from mgc_ray.ensembling.refit import read_refitted
from mgc_ray.results import (
    PREDICTIONS,
    EnsembleInfo,
    SearchResult,
    load_search,
    search_folder,
    write_predictions,
)


def ensemble_of_searches(config: EnsembleCommandConfig) -> EnsembleInfo:
    """Build, save and test; OUT/predictions.parquet has what the figures are made of.

    Searches on different datasets are combined by the tracks that all of them have. Raises
    RequestError where searches were ranked by different metrics, as their validation scores could
    not be compared, and where one's validation or test tracks are another's training tracks.
    """
    folders = [search_folder(search).resolve() for search in config.searches]
    names = [folder.name for folder in folders]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise RequestError(
            f"each search must have its own name, but {repeated[0]!r} is given "
            f"{names.count(repeated[0])} times: give each once, and rename equal folders"
        )
    searches = [load_search(folder) for folder in folders]
    for search in searches:
        search.check_has_dataset()
    _check_comparable(searches)
    refits = [folder / "refit" for folder in folders if (folder / "refit").is_dir()]
    if refits and len(refits) < len(searches):
        raise RequestError(
            "searches must all have been refitted or none, as trials and refitted configurations "
            f"are evaluated on other tracks, but {len(refits)} of {len(searches)} were: give one "
            "kind"
        )
    prefix = {s.name: f"{s.name}." if len(searches) > 1 else "" for s in searches}
    held = []
    for group in _by_dataset(searches):
        dataset = group[0].dataset_folder
        if refits:
            refitted = [
                replace(one, name=prefix[s.name] + one.name)
                for s in group
                for one in read_refitted(s.folder / "refit")
            ]
            held.append(out_of_fold(dataset, refitted))
        else:
            candidates = [
                replace(one, name=prefix[s.name] + one.name)
                for s in group
                for one in candidates_of(s.folder, s.records)
            ]
            held.append(validation(dataset, candidates, config.top_k))
    built = build_ensemble(held, config.out, config.half)
    info, predictions = test_ensemble(built, searches[0].config.seed)
    write_predictions(config.out / PREDICTIONS, predictions)
    return info


def _check_comparable(searches: Sequence[SearchResult]) -> None:
    first, *others = searches
    for other in others:
        if other.config.metric != first.config.metric:
            raise RequestError(
                f"searches must have been ranked by one metric, but {first.folder} was by "
                f"{first.config.metric} and {other.folder} by {other.config.metric}: run one of "
                "them again by the other's --metric"
            )


def _by_dataset(searches: Sequence[SearchResult]) -> list[list[SearchResult]]:
    """The searches that have equal datasets together."""
    groups: list[tuple[DatasetInfo, list[SearchResult]]] = []
    for search in searches:
        info = read_info(search.dataset_folder)
        for other, group in groups:
            if info.holds_the_same_as(other):
                group.append(search)
                break
        else:
            groups.append((info, [search]))
    return [group for _, group in groups]
