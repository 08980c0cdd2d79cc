"""Trials on a cluster: the only room, with serving, that knows Ray."""

import os
import sys
from pathlib import Path

# Read when Ray is imported, which is after this: a search is shown by display.py alone, and its
# files are written by trial_log.py alone.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# a failed trial reports its reason and no metric
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# Ctrl-C reaches the command, which says how to go on
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# a trial that runs again is no error to show; one that failed is told with its reason
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# Tune saves its state every ten seconds, all trials anew, for a restore that is never used here
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what is run here

# `ray start` makes a token and asks for it, but `ray.init(address=...)` sends one only in this
# mode, which is read when Ray is imported: set later, only the servers that Ray starts would know.
_tokens = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_imported = "ray" in sys.modules
if not _imported and (
    any(name in os.environ for name in _tokens) or (Path.home() / ".ray" / "auth_token").exists()
):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
