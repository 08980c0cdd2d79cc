"""What the commands train and pretrain share: progress, the best epoch, the folder to write."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mgc_ray import RequestError
from mgc_ray.models import configure
from mgc_ray.models._classifier import count_parameters
from mgc_ray.settings import Params
from mgc_ray.terminal.command import console
from mgc_ray.terminal.progress import progress
from mgc_ray.training.descent import NonFiniteLossError
from mgc_ray.training.loop import Epoch


def new_checkpoint_folder(out: Path | None) -> Path | None:
    """Make the folder, now and not after an epoch; RequestError where it has a checkpoint."""
    if out and (out / "config.json").exists():
        raise RequestError(f"--out {out} holds a checkpoint already: give another folder")
    if out:
        out.mkdir(parents=True, exist_ok=True)
    return out


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
                    console.print(f"{family}, {parameters:,} parameters, {about}", markup=False)
                if epoch.best:
                    best = epoch
                    keep(epoch)
                advance(epoch.number, f"best epoch {best.number if best else 0}")
        except NonFiniteLossError as error:
            console.print(f"training has diverged: {error}", style="red", markup=False)
    return best
