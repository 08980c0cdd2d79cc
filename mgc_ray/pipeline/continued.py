"""A search that goes on from a storage: from what another machine has sent, whole or not at all."""

import os
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.data.files import delete, exclusive_lock, is_damaged, partial_path
from mgc_ray.data.storage import CLAIMS, Storage, claims
from mgc_ray.results import SEARCH, TRIAL, load_search
from mgc_ray.terminal.command import console


def refuse_second(folder: Path, holder: str) -> None:
    raise RequestError(
        f"{folder} is being searched by {holder}: wait for it, stop it, or choose another --name"
    )


def has_search(folder: Path) -> bool:
    """Whether a folder is one of a search; one whose description is damaged counts as none."""
    return (folder / SEARCH).exists() and not is_damaged(folder / SEARCH)


def fetch_search(storage: Storage, name: str, folder: Path) -> None:
    """Fetch a search where the storage knows more than its folder, or where that is none.

    It does where a driver of which the folder knows nothing wrote last. Trials that ended here, but
    did not reach the storage, are kept. The description comes last: killed before, it is begun
    again.
    """
    latest = claims(storage, name)[-1:]
    if has_search(folder) and (not latest or latest[0] in load_search(folder).claims):
        return
    keys = [key for key in storage.files(name) if f"/{CLAIMS}/" not in key]
    if f"{name}/{SEARCH}" not in keys:
        return
    if not folder.exists():
        place = partial_path(folder)
        delete(place)
        _fetch(storage, name, keys, place)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(place, folder)
        return
    console.print(f"{name} was continued on another machine: fetching what that has done")
    with exclusive_lock(folder, lambda holder: refuse_second(folder, holder)):
        for key in keys:
            if key.endswith(f"/{TRIAL}"):  # with all that is left here of an earlier run of it
                delete(folder / key.removeprefix(f"{name}/").removesuffix(f"/{TRIAL}"))
        _fetch(storage, name, keys, folder)


def _fetch(storage: Storage, name: str, keys: list[str], folder: Path) -> None:
    last = f"{name}/{SEARCH}"
    storage.get_files({key: folder / key[len(name) + 1 :] for key in keys if key != last})
    storage.get_files({last: folder / SEARCH})
