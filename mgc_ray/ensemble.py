"""Gather the best trials of several searches, of any families, into one ensemble, tested once.

python -m mgc_ray.ensemble results/cnn-001 results/gru-001 --out results/both
"""

from dataclasses import replace
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.dataset import read_info
from mgc_ray.ensembling.figures import also_trained_on, in_words
from mgc_ray.ensembling.gather import Candidate, candidates_of, gather, gather_refitted
from mgc_ray.terminal.command import Parser, console, positive_int, print_json, run


def collect(searches: list[Path]) -> tuple[Path, list[Candidate]]:
    """The one dataset of all searches and their candidates, named SEARCH.TRIAL where several.

    Raises RequestError where the searches ran on different datasets: their validation figures could
    not be compared, and one's validation tracks may be another's training tracks.
    """
    names = [search.name for search in searches]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise RequestError(
            f"each search must have a name of its own, but {repeated[0]!r} stands there "
            f"{names.count(repeated[0])} times: name each once, and rename equal folders"
        )
    candidates: list[Candidate] = []
    first, *others = found = [(search, *candidates_of(search)) for search in searches]
    for search, dataset, _ in others:
        if read_info(dataset).settings != read_info(first[1]).settings:
            raise RequestError(
                f"searches must have run on one dataset, but {first[0]} has {first[1]} and "
                f"{search} has {dataset}: run them again on the same tracks, protocol and seed"
            )
    for search, _, own in found:
        prefix = f"{search.name}." if len(searches) > 1 else ""
        candidates += [replace(candidate, name=prefix + candidate.name) for candidate in own]
    return first[1], candidates


def main() -> int:
    """Parse the command line, gather, print the figures."""
    parser = Parser(
        prog="python -m mgc_ray.ensemble",
        description="Gather the best trials of searches over one dataset into one ensemble.",
    )
    parser.add_argument("searches", nargs="+", type=Path, metavar="RESULTS", help="results/NAME")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to save it")
    parser.add_argument("--top-k", type=positive_int, default=5, help="trials to select from")
    parser.add_argument("--half", action="store_true", help="weights of 16 bits: half the size")
    parser.add_argument("--json", action="store_true", help="print ensemble.json's content")
    args = parser.parse_args()
    searches = [search.resolve() for search in args.searches]
    dataset, candidates = collect(searches)
    refits = [search / "refit" for search in searches if (search / "refit").is_dir()]
    if refits and len(refits) < len(searches):
        raise RequestError(
            "searches must all have been refitted or none, as trials and refitted configurations "
            f"are judged on other tracks, but {len(refits)} of {len(searches)} were: name one kind"
        )
    if refits:
        content = gather_refitted(dataset, refits, args.out, args.half)
    else:
        content = gather(dataset, candidates, args.out, args.top_k, args.half)
    members = ", ".join(f"{m['name']} ({m['weight']:.2f})" for m in content["members"])
    leaky = ", LEAKY" if content["leaky"] else ""
    console.print(f"ensemble of {members} in {args.out}", markup=False)
    if also := also_trained_on(content):
        console.print(f"it was also trained on {also}", markup=False)
    selected_on = content["selected_on"].replace("_", " ")
    console.print(
        f"{selected_on} (selected on it): {in_words(content['validation'])}", markup=False
    )
    test = in_words(content["test"]) if content["test"] else "no test tracks in the dataset"
    console.print(f"TEST (protocol {content['protocol']}{leaky}): {test}", markup=False)
    if args.json:
        print_json(content)
    return 0


if __name__ == "__main__":
    run("mgc_ray.ensemble", main)
