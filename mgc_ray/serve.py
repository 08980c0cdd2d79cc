"""An ensemble behind HTTP, with a page: drop a song in and see its genres.

    python -m mgc_ray.serve --model results/gru-001/ensemble

It listens on this machine alone, unless --host says otherwise. GET /openapi.json describes the
interface, GET /docs shows that as a page (whose scripts a browser loads from the internet).
"""

import time

from mgc_ray import RequestError
from mgc_ray.terminal.command import Parser, console, port, positive_int, run, stopped_by


def main() -> int:
    """Parse the command line, serve until Ctrl-C."""
    parser = Parser(
        prog="python -m mgc_ray.serve",
        description="Serve an ensemble by HTTP, with a page, until Ctrl-C.",
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="DIR",
        help="an ensemble or a checkpoint (default: the ensemble that comes with the program)",
    )
    add("--host", default="127.0.0.1", help="0.0.0.0 lets everyone in who reaches this machine")
    add("--port", type=port, default=8000, help="where it listens, up to 65535")
    add("--replicas", type=positive_int, help="copies of the model (default: one a CPU or GPU)")
    add("--max-megabytes", type=positive_int, default=50, help="of a file")
    add("--max-seconds", type=positive_int, default=1200, help="length of a song")
    add("--timeout", type=positive_int, default=60, metavar="SECONDS", help="of an answer")
    add("--queue", type=positive_int, default=64, help="songs that may wait; more are refused")
    add("--address", help="a Ray cluster, e.g. ray-head:6379 (default: $RAY_ADDRESS, else here)")
    args = parser.parse_args()
    try:
        import fastapi  # noqa: F401
        import multipart  # noqa: F401  of python-multipart, which reads forms
    except ImportError as error:
        raise RequestError(
            f'serving needs the package {error.name}: pip install "mgc-ray[serve]"'
        ) from None
    from mgc_ray.ensembling.artefact import load_ensemble, shipped_model
    from mgc_ray.serving.run import serving

    ensemble = load_ensemble(args.model or shipped_model())
    from mgc_ray.serving.app import Limits

    limits = Limits(args.max_megabytes, args.max_seconds, args.timeout, args.queue)
    console.print("starting Ray", style="dim")
    with serving(ensemble, args.host, args.port, args.replicas, limits, args.address) as replicas:
        console.print(
            f"http://{args.host}:{args.port}/ answers, with {replicas} "
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
