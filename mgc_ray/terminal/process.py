"""What a process of this program needs before it loads Ray or computes features."""

import os
import sys
from pathlib import Path

from mgc_ray.data.audio import keep_freed_memory

# Ray reads these when it is imported.
_RAY_SETTINGS = {
    # a search is displayed by tuning/display.py, and its files are written by tuning/callbacks.py
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # a failed trial reports its reason and no metric
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C reaches the command, which says how to continue
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # a trial that runs again is no error to show; one that failed is reported with its reason
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune saves its whole state every ten seconds, for a restore that is never used here
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
    # its handler of SIGTERM would abort this process with a dump of its stack
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
# what Apple's GPUs cannot do yet is then done by the CPU; PyTorch reads it when it is imported
_MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def prepare_process() -> None:
    """Set what Ray and PyTorch read when they are imported, and keep freed memory.

    Called once per command.

    Variables that are set already stay.
    """
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault(_MPS_FALLBACK, "1")
    # `ray start` makes a token and asks for it, but `ray.init(address=...)` sends one only in this
    # mode: set after Ray's import, only the servers that Ray starts would know it.
    if "ray" not in sys.modules and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    keep_freed_memory()


def _has_token() -> bool:
    if any(name in os.environ for name in _TOKENS):
        return True
    try:
        return (Path.home() / ".ray" / "auth_token").exists()
    except (RuntimeError, OSError):  # there is no home folder, or it cannot be read
        return False
