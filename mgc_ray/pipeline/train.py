"""What the commands train and pretrain share: progress, and the best epoch."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mgc_ray.models import configure
from mgc_ray.models._classifier import count_parameters
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress
from mgc_ray.terminal.stopping import start_again
from mgc_ray.training.descent import NonFiniteLossError
from mgc_ray.training.epoch import Epoch


def best_so_far(out: Path | None) -> str:
    """What is left of a training that was stopped, for `on_stop`."""
    if out and (out / "config.json").exists():
        return f"; the best epoch so far is in {out}"
    return start_again()


def keep_best(
    family: str,
    params: Params,
    epochs: Iterator[Epoch],
    keep: Callable[[Epoch], None],
    about: str,
) -> Epoch | None:
    """Train with a progress bar and `keep` each best epoch; the last of these.

    None where training diverged before the first epoch had ended. `about` is printed once.
    """
    best: Epoch | None = None
    with progress(family, configure(family, params)[1].max_epochs, "epochs") as advance:
        try:
            for epoch in epochs:
                if epoch.number == 1:
                    parameters = count_parameters(epoch.classifier)
                    console.print(f"{family}, {parameters:,} parameters, {about}")
                if epoch.best:
                    best = epoch
                    keep(epoch)
                advance(epoch.number, f"best epoch {best.number if best else 0}")
        except NonFiniteLossError as error:
            console.print(f"training has diverged: {error}", style="red")
    return best
