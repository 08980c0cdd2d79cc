"""An ensemble behind HTTP, with a page: drop a song on it and see its genres.

    python -m mgc_ray.serve --model results/gru-001/ensemble

It listens only on this machine, unless --host says otherwise. GET /openapi.json describes the
interface, GET /docs shows that as a page (whose scripts a browser loads from the internet).
"""

import time
from collections.abc import Sequence

from mgc_ray import RequestError
from mgc_ray.config import ServeConfig
from mgc_ray.models import family_names
from mgc_ray.terminal.command import console, run, stopped_by
from mgc_ray.terminal.options import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, serve until Ctrl-C."""
    description = "Serve an ensemble by HTTP, with a page, until Ctrl-C."
    config = parse(ServeConfig, argv, "serve", description).config
    family_names(config.family)
    try:
        import fastapi  # noqa: F401
        import multipart  # noqa: F401  of python-multipart, which reads forms
    except ImportError as error:
        raise RequestError(
            f'serving needs the package {error.name}: pip install "mgc-ray[serve]"'
        ) from None
    from mgc_ray.ensembling.saved import load_ensemble, shipped_model
    from mgc_ray.serving.run import serving

    ensemble = load_ensemble(config.model or shipped_model())
    console.print("starting Ray", style="dim")
    with serving(ensemble, config) as (address, replicas):
        console.print(
            f"serving {address} with {replicas} "
            f"replica{'s' if replicas > 1 else ''}; Ctrl-C ends it",
            soft_wrap=True,
            markup=False,
        )
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            console.print(f"stopped by {stopped_by()}", markup=False)
    return 0


if __name__ == "__main__":
    run("mgc_ray.serve", main)
