"""One ensemble of the best trials of several searches over one dataset."""

from collections.abc import Sequence
from dataclasses import replace

from mgc_ray import RequestError
from mgc_ray.config import EnsembleCommandConfig
from mgc_ray.data.dataset import read_info
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
    write_predictions,
)


def ensemble_of_searches(config: EnsembleCommandConfig) -> EnsembleInfo:
    """Build, save and test; OUT/predictions.parquet has what the figures are made of.

    Raises RequestError where the searches ran on different datasets or were ranked by different
    metrics: their validation scores could not be compared, and one's validation tracks may be
    another's training tracks.
    """
    folders = [folder.resolve() for folder in config.searches]
    names = [folder.name for folder in folders]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise RequestError(
            f"each search must have its own name, but {repeated[0]!r} is given "
            f"{names.count(repeated[0])} times: give each once, and rename equal folders"
        )
    searches = [_readable(load_search(folder)) for folder in folders]
    _check_comparable(searches)
    dataset = searches[0].dataset_folder
    refits = [folder / "refit" for folder in folders if (folder / "refit").is_dir()]
    if refits and len(refits) < len(searches):
        raise RequestError(
            "searches must all have been refitted or none, as trials and refitted configurations "
            f"are evaluated on other tracks, but {len(refits)} of {len(searches)} were: give one "
            "kind"
        )
    prefix = {s.name: f"{s.name}." if len(searches) > 1 else "" for s in searches}
    if refits:
        refitted = [
            replace(one, name=prefix[folder.parent.name] + one.name)
            for folder in refits
            for one in read_refitted(folder)
        ]
        held = out_of_fold(dataset, refitted)
    else:
        candidates = [
            replace(one, name=prefix[s.name] + one.name)
            for s in searches
            for one in candidates_of(s.folder, s.records)
        ]
        held = validation(dataset, candidates, config.top_k)
    built = build_ensemble(held, config.out, config.half)
    info, predictions = test_ensemble(built, dataset, searches[0].config.seed)
    write_predictions(config.out / PREDICTIONS, predictions)
    return info


def _readable(search: SearchResult) -> SearchResult:
    if not search.dataset:
        raise RequestError(
            f"{search.folder} was interrupted before it had a dataset: continue it by python -m "
            f"mgc_ray.search --resume {search.name} --results {search.folder.parent}"
        )
    return search


def _check_comparable(searches: Sequence[SearchResult]) -> None:
    first, *others = searches
    dataset = read_info(first.dataset_folder)
    for other in others:
        if other.config.metric != first.config.metric:
            raise RequestError(
                f"searches must have been ranked by one metric, but {first.folder} was by "
                f"{first.config.metric} and {other.folder} by {other.config.metric}: run one of "
                "them again by the other's --metric"
            )
        if not read_info(other.dataset_folder).holds_the_same_as(dataset):
            raise RequestError(
                f"searches must have run on one dataset, but {first.folder} has "
                f"{first.dataset_folder} and {other.folder} has {other.dataset_folder}: run them "
                "again on the same tracks, protocol and seed"
            )
