"""An ensemble behind HTTP, with a page: drop a song on it and see its genres.

    mgc-ray serve --model results/gru-001/ensemble

It listens only on this machine, unless --host says otherwise; then give it a token, in a file or in
$MGC_RAY_TOKEN. GET /docs describes the interface (/openapi.json for programs), /metrics is for
Prometheus, /healthz says that it is up. Ctrl-C and SIGTERM end it, with exit status 0: it was asked
to.
"""

import time
from collections.abc import Sequence
from typing import NoReturn

from mgc_ray import RequestError
from mgc_ray.config import ServeConfig
from mgc_ray.pipeline.checks import check_given_model, register_files
from mgc_ray.terminal.command import console, print_stop, print_warnings, run
from mgc_ray.terminal.options import parse
from mgc_ray.terminal.stopping import on_stop
from mgc_ray.tuning.address import check_address

_OPEN = (
    "everyone who reaches this machine may use the server: give it a token, which requests must "
    "then have (--token FILE, or MGC_RAY_TOKEN), unless a proxy before it asks for one"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, serve until Ctrl-C or SIGTERM; to be stopped is no failure."""
    description = "Serve an ensemble by HTTP, with a page, until Ctrl-C or SIGTERM."
    config = parse(ServeConfig, argv, "serve", description).config
    register_files(config.family, config.feature_files)
    try:
        import fastapi  # noqa: F401
        import multipart  # noqa: F401  of python-multipart, which reads forms
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f'serving needs the package {error.name}: pip install "mgc-ray[serve]"'
        ) from None
    from mgc_ray.serving.access import check_origins, is_loopback, take_token

    token = take_token(config.token)
    check_origins(config.cors)
    check_given_model(config.model)
    check_address(config.address)
    if not (token or is_loopback(config.host)):
        print_warnings([_OPEN])
    on_stop(lambda: "")
    try:
        _serve(config, token)
    except KeyboardInterrupt:
        print_stop("mgc_ray.serve")
    return 0


def _serve(config: ServeConfig, token: str) -> NoReturn:
    from mgc_ray.pipeline.songs import load_model
    from mgc_ray.serving.run import serving

    ensemble = load_model(config.model)
    console.print("starting Ray", style="dim")
    with serving(ensemble, config, token) as (address, replicas):
        console.print(
            f"serving {address} with {replicas} "
            f"replica{'s' if replicas > 1 else ''}; Ctrl-C ends it",
            soft_wrap=True,
        )
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    run("mgc-ray serve", main)
