"""What a search is asked to do."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.files import read_json
from mgc_ray.data.request import DatasetRequest, request_from_json
from mgc_ray.data.storage import Exchange, Storage
from mgc_ray.tuning.settings import TuneSettings

BUILT_IN = "built-in corpus"


@dataclass(frozen=True)
class SearchRequest:
    """What a search is asked to do; the same request gives the same search."""

    families: tuple[str, ...]
    name: str
    results: str
    dataset: DatasetRequest  # tracks "": the built-in corpus
    top_k: int = 5
    smoke: bool = False
    warm_start: tuple[str, ...] = ()  # names of earlier searches
    init_from: str | None = None  # weights that the family transfer starts from
    refit_folds: int | None = None  # None: members are the trials themselves
    storage: str | None = None  # by which nodes exchange files that share no path
    memory: int | None = None  # bytes that spectrograms may take; more are streamed from disk
    settings: TuneSettings = field(default_factory=TuneSettings)

    @property
    def folder(self) -> Path:
        return Path(self.results) / self.name

    @property
    def exchange(self) -> Exchange:
        """The search's folder, as the nodes of a cluster reach it."""
        storage = Storage(self.storage) if self.storage else None
        return Exchange(self.folder, storage, self.name)


def resumed_request(results: Path, name: str) -> SearchRequest:
    """The request of an earlier search, which must not have ended."""
    begun = [path.parent.name for path in results.glob("*/search.json")]
    near = get_close_matches(name, begun, 1)
    content = read_json(
        results / name / "search.json",
        "search",
        f"the nearest name is {near[0]}" if near else "see the folders in --results for the names",
    )
    if content.get("finished"):
        raise RequestError(f"{results / name} has ended already: nothing is left to go on with")
    try:
        request = content["request"]
        return SearchRequest(
            **request
            | {
                "families": tuple(request["families"]),
                "dataset": request_from_json(request["dataset"]),
                "warm_start": tuple(request["warm_start"]),
                "settings": TuneSettings(
                    **request["settings"] | {"fixed": tuple(request["settings"]["fixed"])}
                ),
                "results": str(results),
            }
        )
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{results / name} was written by another version of this program ({error}): start "
            "the search anew under another --name"
        ) from None
